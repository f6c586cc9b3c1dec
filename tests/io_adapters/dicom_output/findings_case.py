"""A generated series with a finding in it, and what a detector might say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, write_files
from pydicom import Dataset

from io_adapters.dicom_output.findings import Findings
from io_adapters.dicom_output.source import read_sources

SAGITTAL_OBLIQUE = (0.10452846, 0.9945219, 0.0, 0.0, 0.0, -1.0)
SLICES, ROWS, COLUMNS = 12, 40, 48
HEAT = (0.25, 0.75)

COMPLETE = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-0042",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "PatientAge": "050Y",
    "StudyID": "S1",
    "AccessionNumber": "A-77",
    "StudyTime": "101112",
    "ReferringPhysicianName": "Roe^Richard",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.9",
    "PositionReferenceIndicator": "",
    "Manufacturer": "maker",
    "BodyPartExamined": "HEAD",
}
"""Every attribute that results copy."""


def series(slices: int = SLICES, **attributes: Any) -> list[Dataset]:
    """Return CT slices (S, 40, 48) with any attribute of `make_series` replaced."""
    values = np.arange(slices * ROWS * COLUMNS, dtype=np.int32) % 4000 - 1000
    volume = values.astype(np.int16).reshape(slices, ROWS, COLUMNS)
    return make_series(volume, **(COMPLETE | {"spacing": (0.75, 0.5)} | attributes))


def maps_of(slices: int = SLICES) -> np.ndarray:
    """Return maps (S, 40, 48) with one lopsided blob, and a last slice that was not scored."""
    maps = np.full((slices, ROWS, COLUMNS), 0.125, np.float32)
    maps[2:5, 6:20, 30:44] = 0.5
    maps[3, 8:12, 31:36] = 0.875
    maps[-1] = np.nan
    return maps


def findings_of(folder: Path, datasets: list[Dataset], **changed: Any) -> Findings:
    """Write a series of single frames in the order of its slices; return findings in it."""
    ref = write_files(folder, datasets)
    slices = len(datasets)
    fields: dict[str, Any] = {
        "sources": read_sources([(file, 0) for file in ref.files], 2.0),
        "display": np.full((slices, ROWS, COLUMNS, 1), 90, np.uint8),
        "maps": maps_of(slices),
        "heat": HEAT,
        "score": 0.8125,
        "slice_scores": [*(round(0.9 - 0.01 * n, 6) for n in range(slices - 1)), None],
        "worst": range(min(slices, 3)),
        "spacing": (0.75, 0.5),
        "obstacle": None,
        "method": "aaclip",
        "model_digest": "0123456789abcdef" * 4,
        "seed": "settings",
    }
    return Findings(**fields | changed)


def positions_of(datasets: list[Dataset]) -> np.ndarray:
    """Return where every voxel lies, LPS millimetres (S, H, W, 3), from the headers alone."""
    grids = []
    for dataset in datasets:
        along_row, along_column = np.reshape(dataset.ImageOrientationPatient, (2, 3))
        between_rows, between_columns = dataset.PixelSpacing
        rows = np.arange(dataset.Rows)[:, None, None] * between_rows * along_column
        columns = np.arange(dataset.Columns)[None, :, None] * between_columns * along_row
        grids.append(np.asarray(dataset.ImagePositionPatient) + rows + columns)
    return np.stack(grids).astype(np.float64)
