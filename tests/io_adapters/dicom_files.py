"""Small DICOM files made by hand: the tests' own archive."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from io_adapters.readers import read_scan
from io_adapters.scan import FileRef, Kind, Plane, Scan, ScanRef

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
ROOT = "1.2.826.0.1.3680043.8.498."


def make_instance(pixels: np.ndarray, **attributes: Any) -> Dataset:
    """Return one CT slice, (H, W) of 16 bits or (H, W, 3) of 8, with any attribute replaced.

    An attribute given as None is left out.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    colour = pixels.ndim == 3
    bits = 8 * pixels.dtype.itemsize
    fields: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": ROOT + "3.1",
        "StudyInstanceUID": ROOT + "1",
        "SeriesInstanceUID": ROOT + "2",
        "Modality": "CT",
        "PatientID": "X",
        "PatientName": "X",
        "StudyDate": "20200101",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": "2",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": list(AXIAL),
        "PixelData": np.ascontiguousarray(pixels).tobytes(),
    }
    for keyword, value in (fields | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def make_series(
    volume: np.ndarray,
    *,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.75),
    step: float | np.ndarray = 2.0,
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    **attributes: Any,
) -> list[Dataset]:
    """Return a series (S, H, W), slice k at origin + k·step (millimetres along the normal, or a
    vector)."""
    normal = np.cross(orientation[:3], orientation[3:])
    stride = normal * step if np.isscalar(step) else np.asarray(step)
    instances = []
    for k, plane in enumerate(volume):
        position = np.asarray(origin) + k * stride
        fields: dict[str, Any] = {
            "SOPInstanceUID": f"{ROOT}3.{k + 1}",
            "InstanceNumber": k + 1,
            "ImageOrientationPatient": [float(x) for x in orientation],
            "ImagePositionPatient": [round(float(x), 6) for x in position],
            "PixelSpacing": list(spacing),
            "SliceThickness": f"{np.linalg.norm(stride):.6f}",
        }
        instances.append(make_instance(plane, **(fields | attributes)))
    return instances


def encode(dataset: Dataset) -> bytes:
    """Return the bytes of a DICOM file."""
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def write_files(folder: Path, datasets: list[Dataset]) -> ScanRef:
    """Write files into a folder and return the ref of all of them together."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, dataset in enumerate(datasets):
        (folder / f"{n:04}.dcm").write_bytes(encode(dataset))
    return ref_of(Kind.DICOM, *sorted(folder.iterdir()))


def ref_of(kind: Kind, *paths: Path) -> ScanRef:
    """Return the ref of files that are one scan."""
    files = tuple(FileRef(uri=str(path), size=path.stat().st_size, version="1") for path in paths)
    uri = str(paths[0] if len(paths) == 1 else paths[0].parent)
    return ScanRef(kind=kind, uri=uri, files=files, scan_id="scan", study_id="study", label="scan")


def volume(slices: int = 5, rows: int = 6, columns: int = 8) -> np.ndarray:
    """Return (S, H, W) voxels that are all different."""
    numbers = np.arange(slices * rows * columns, dtype=np.int16)
    return numbers.reshape(slices, rows, columns) - 1000


def read(folder: Path, datasets: list[Dataset], plane: Plane = Plane.ACQUIRED) -> Scan:
    """Write a series and read it."""
    return read_scan(write_files(folder, datasets), plane)


def read_one(folder: Path, pixels: np.ndarray, **attributes: object) -> Scan:
    """Write a single slice, with any attribute replaced, and read it."""
    return read(folder, [make_instance(pixels, **attributes)])
