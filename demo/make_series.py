"""Write a volume as a series of MR slices that any DICOM reader accepts.

The patient is invented, identifiers derive from a text, dates are fixed: the same call writes
the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

AXIAL_SHAPE = (160, 192, 24)
"""Columns, rows, slices: how the arrays (I, J, K) of this module are ordered."""
PIXEL, THICKNESS = 1.2, 6.0  # mm
FIRST = (-95.4, -96.6, -62.0)
"""DICOM's left, back, top millimetres of voxel (0, 0, 0): far right, front and bottom."""
DATE, TIME = "20240102", "030405"


def axial_affine() -> np.ndarray:
    """Return (4, 4): voxel (column, row, slice) to RAS mm; columns run left and rows back."""
    affine = np.diag([-PIXEL, -PIXEL, THICKNESS, 1.0])
    affine[:3, 3] = -FIRST[0], -FIRST[1], FIRST[2]
    return affine


def as_converted(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume (I, J, K) and its affine as DICOM converters write it: rows bottom to top."""
    affine = axial_affine()
    affine[:, 3] = affine @ [0, volume.shape[1] - 1, 0, 1]
    affine[1, 1] *= -1
    return volume[:, ::-1], affine


def write_mr_series(folder: Path, volume: np.ndarray, *, study: str) -> None:
    """Write a volume as one file a slice.

    Args:
        folder: Where to; it is made.
        volume: (I, J, K) int16 on the grid of `axial_affine`.
        study: What the identifiers are derived from; another text, another study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(volume.shape[2]):
        slice_ = _describe(study, index)
        _set_geometry(slice_, index)
        _set_pixels(slice_, volume[:, :, index].T, brightest=int(volume.max()))
        slice_.save_as(folder / f"slice_{index + 1:03d}.dcm", enforce_file_format=True)


def _uid(study: str, part: str) -> str:
    return str(generate_uid(entropy_srcs=[study, part]))


def _describe(study: str, index: int) -> Dataset:
    """Return a slice's attributes about patient, study, series and acquisition."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(study, f"slice {index}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    slice_.PatientName, slice_.PatientID = "ANON^DEMO", "DEMO"
    slice_.PatientBirthDate = slice_.PatientSex = ""
    slice_.StudyDate = slice_.SeriesDate = slice_.AcquisitionDate = slice_.ContentDate = DATE
    slice_.StudyTime = slice_.SeriesTime = slice_.AcquisitionTime = slice_.ContentTime = TIME
    slice_.AccessionNumber = slice_.ReferringPhysicianName = slice_.StudyID = ""
    slice_.Manufacturer = "none (computed from the MNI152 template)"
    slice_.Modality, slice_.BodyPartExamined = "MR", "BRAIN"
    slice_.StudyDescription, slice_.SeriesDescription = "Demonstration", "T1 axial"
    slice_.ScanningSequence, slice_.SequenceVariant, slice_.ScanOptions = "SE", "NONE", ""
    slice_.MRAcquisitionType, slice_.EchoTrainLength = "2D", 1
    slice_.RepetitionTime, slice_.EchoTime = 500, 10
    slice_.StudyInstanceUID = _uid(study, "study")
    slice_.SeriesInstanceUID = _uid(study, "series")
    slice_.FrameOfReferenceUID = _uid(study, "frame of reference")
    slice_.PositionReferenceIndicator = ""
    slice_.SeriesNumber, slice_.InstanceNumber = 1, index + 1
    return slice_


def _set_geometry(slice_: Dataset, index: int) -> None:
    left, back, top = FIRST
    slice_.ImagePositionPatient = [left, back, top + index * THICKNESS]
    slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    slice_.PixelSpacing = [PIXEL, PIXEL]
    slice_.SliceThickness = slice_.SpacingBetweenSlices = THICKNESS
    slice_.PatientPosition = "HFS"


def _set_pixels(slice_: Dataset, rows: np.ndarray, *, brightest: int) -> None:
    """Store pixels (H, W) int16, and the window that shows all of the series."""
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.Rows, slice_.Columns = rows.shape
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation = 15, 1
    slice_.WindowCenter, slice_.WindowWidth = brightest / 2, brightest
    slice_.PixelData = np.ascontiguousarray(rows, dtype="<i2").tobytes()
