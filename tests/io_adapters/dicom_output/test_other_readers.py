"""DICOM results through programs that are not ours: validators, and 3D Slicer's converter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import AXIAL, encode
from findings_case import HEAT, SAGITTAL_OBLIQUE, findings_of, maps_of, positions_of, series
from pydicom import Dataset

from io_adapters.dicom_output.findings import DicomOutput
from io_adapters.dicom_output.objects import make_objects

ORIENTATIONS = pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL_OBLIQUE])
VALIDATORS = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing: install Debian's dicom3tools"
)
DCMQI = Path(sys.executable).parent
LPS_TO_RAS = np.array([-1, -1, 1])
CLOSE = 0.01
"""Millimetres."""


@pytest.fixture
def datasets(orientation: tuple[float, ...]) -> list[Dataset]:
    return series(orientation=orientation)


def write_results(folder: Path, datasets: list[Dataset], **changed: object) -> list[Path]:
    """Write a series and all its results into a folder; return the paths of the results."""
    made = make_objects(findings_of(folder / "series", datasets, **changed), set(DicomOutput))
    assert made.omitted == {}
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in sorted(made.files)]


def errors_of(command: list[str]) -> list[str]:
    """Return the lines in which a validator tells an error; it does say something of each file."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


@VALIDATORS
def test_the_validator_finds_errors_where_there_are_some(tmp_path: Path) -> None:
    broken = series(1)[0]
    del broken.StudyInstanceUID
    (tmp_path / "broken.dcm").write_bytes(encode(broken))
    assert errors_of(["dciodvfy", "-new", str(tmp_path / "broken.dcm")])


@VALIDATORS
@ORIENTATIONS
@pytest.mark.parametrize("body_part", ["HEAD", "KNEE", None])
def test_every_object_is_valid(
    tmp_path: Path, orientation: tuple[float, ...], body_part: str | None
) -> None:
    results = write_results(tmp_path, series(orientation=orientation, BodyPartExamined=body_part))
    found = {path.name: errors_of(["dciodvfy", "-new", str(path)]) for path in results}
    assert found == {path.name: [] for path in results}


@VALIDATORS
@ORIENTATIONS
def test_patient_study_and_frame_of_reference_agree_with_the_series(
    tmp_path: Path, datasets: list[Dataset]
) -> None:
    results = write_results(tmp_path, datasets)
    files = [*sorted((tmp_path / "series").iterdir()), *results]
    assert errors_of(["dcentvfy", *map(str, files)]) == []


def convert(program: str, source: Path, folder: Path) -> nib.Nifti1Image:
    """Convert an object to NIfTI with dcmqi."""
    folder.mkdir()
    options = ["--inputDICOM", source, "--outputDirectory", folder, "--outputType", "nii"]
    subprocess.run([str(DCMQI / program), *map(str, options)], check=True, capture_output=True)
    return nib.load(next(iter(sorted(folder.glob("*.nii*")))))


def places(image: nib.Nifti1Image) -> np.ndarray:
    """Return where the voxels of a NIfTI file lie, LPS millimetres (I, J, K, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(image.affine, indices) * LPS_TO_RAS


@ORIENTATIONS
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_voxel_of_the_map_lies_where_it_belongs(
    tmp_path: Path, datasets: list[Dataset], axis: int
) -> None:
    positions = positions_of(datasets)
    write_results(tmp_path, datasets, maps=positions[..., axis], heat=(-100.0, 100.0))
    image = convert("paramap2itkimage", tmp_path / "map.dcm", tmp_path / "converted")
    assert image.shape == positions.shape[2::-1]
    np.testing.assert_allclose(image.get_fdata(), places(image)[..., axis], atol=CLOSE)


@ORIENTATIONS
def test_every_voxel_of_the_segment_lies_where_it_belongs(
    tmp_path: Path, datasets: list[Dataset]
) -> None:
    write_results(tmp_path, datasets)
    image = convert("segimage2itkimage", tmp_path / "seg.dcm", tmp_path / "converted")
    found = places(image)[np.asarray(image.dataobj) > 0]
    expected = positions_of(datasets)[np.nan_to_num(maps_of()) > HEAT[0]]
    assert len(found) == len(expected)
    distances = np.linalg.norm(found[:, None] - expected[None], axis=-1)
    assert distances.min(axis=0).max() < CLOSE
    assert distances.min(axis=1).max() < CLOSE
