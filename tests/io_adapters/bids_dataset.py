"""A small BIDS dataset: two subjects, one with sessions, and around them what is no scan."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2.0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])
SCANS = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/func/sub-01_task-rest_run-2_bold.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-DoeJohn_T2w.nii",
    "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
)
IGNORED = {
    "dataset_description.json": ".json",
    "README": "readme",
    "CITATION.cff": ".cff",
    "participants.tsv": ".tsv",
    "sub-01/anat/sub-01_T1w.json": ".json",
    "sub-01/dwi/sub-01_dwi.bval": ".bval",
    "sub-01/eeg/sub-01_photo.jpg": "BIDS eeg",
    "sub-01/fmap/sub-01_phasediff.nii.gz": "BIDS phasediff without anatomy",
    "sub-02/ses-a/anat/sub-02_ses-a_part-phase_T2starw.nii.gz": "BIDS T2starw without anatomy",
    "derivatives/x/dataset_description.json": "BIDS derivatives",
    "derivatives/x/sub-01/anat/sub-01_desc-brain_T1w.nii.gz": "BIDS derivatives",
    "sourcedata/sub-01/1.dcm": "BIDS sourcedata",
    "stimuli/face.png": "BIDS stimuli",
}
"""What each file that is no scan is counted as."""


def volume(*shape: int) -> np.ndarray:
    """A ball in noise, int16."""
    grid = np.indices(shape[:3]) - np.reshape(shape[:3], (3, 1, 1, 1)) / 2
    ball = 800 * (np.linalg.norm(grid, axis=0) < min(shape[:3]) / 3)
    noise = np.random.default_rng(len(shape)).integers(0, 60, shape)
    return (noise + ball.reshape(*shape[:3], *[1] * (len(shape) - 3))).astype(np.int16)


def write_dataset(root: Path) -> Path:
    """Write the dataset; returns its folder."""
    for name in (*SCANS, *IGNORED):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if ".nii" in name:
            shape = (12, 10, 4, 2) if "bold" in name else (12, 10, 6)
            image = nib.Nifti1Image(volume(*shape), AFFINE)
            image.header["descrip"] = "DoeJohn"
            nib.save(image, path)
        else:
            path.write_text("DoeJohn")
    description = {"Name": "DoeJohn", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def errors_of(folder: Path) -> set[str]:
    """Return the codes of the errors that the BIDS validator finds in a dataset."""
    if not find_spec("bids_validator_deno"):
        pytest.skip("bids-validator-deno is not installed (it is in the extra `test`)")
    command = [Path(sys.executable).with_name("bids-validator-deno"), "--json", folder]
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return {issue["code"] for issue in issues if issue["severity"] == "error"}
