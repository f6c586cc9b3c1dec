"""An archive to be scored: compressed CT series and NIfTI volumes, drawn, without a blank slice."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import nibabel as nib
import numpy as np

from jobs.benchmarking.ct_series import INTERCEPT, PICTURES, draw_slices, write_series

NIFTI = "nifti"
KINDS = ("jpeg_ls", NIFTI, "jpeg_2000", NIFTI, "rle")
"""Scans are of these kinds in turn: encodings of a DICOM series, or a .nii.gz file."""


def write_archive(folder: Path, *, slices: int, per_scan: int, size: int) -> int:
    """Write scans of size × size slices, and return how many scans there are.

    Args:
        folder: Will be made.
        slices: Of all scans.
        per_scan: Slices of each; the last one has what is left.
        size: Rows, and columns.
    """
    folder.mkdir(parents=True)
    starts = range(0, slices, per_scan)
    for number, (start, kind) in enumerate(zip(starts, cycle(KINDS), strict=False), start=1):
        count = min(per_scan, slices - start)
        place = folder / f"{number:04}"
        if kind == NIFTI:
            _write_volume(place.with_suffix(".nii.gz"), slices=count, size=size)
        else:
            write_series(place, kind, slices=count, size=size, series=number)
    return len(starts)


def _write_volume(file: Path, *, slices: int, size: int) -> None:
    """Write the slices of a CT series as Hounsfield units."""
    drawn = np.stack(list(draw_slices(min(slices, PICTURES), size))) + np.int16(INTERCEPT)
    voxels = drawn[np.arange(slices) % PICTURES].transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(voxels, np.diag([0.5, 0.5, 1.0, 1.0])), file)
