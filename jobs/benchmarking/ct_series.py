"""A CT series on disk, in several encodings: drawn, and the same every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

INTERCEPT = -1024
PICTURES = 10
"""Slices are these in turn, because encoding takes longer than what is measured."""
_ROOT = "1.2.826.0.1.3680043.8.498."


def write_series(
    folder: Path, encoding: str, *, slices: int, size: int, series: int = 1
) -> list[Path]:
    """Write size × size slices of int16, a millimetre apart, and return their files.

    Args:
        folder: Will be made.
        encoding: One of `ENCODINGS`.
        slices: How many.
        size: Rows, and columns.
        series: Its number, which tells it from others; each is a study of its own.
    """
    folder.mkdir(parents=True)
    encoded = _encode(encoding, min(slices, PICTURES), size)
    files = []
    for number in range(slices):
        dataset = encoded[number % PICTURES]
        dataset.StudyInstanceUID = f"{_ROOT}1.{series}"
        dataset.SeriesInstanceUID = f"{_ROOT}2.{series}"
        dataset.SOPInstanceUID = f"{_ROOT}3.{series}.{number + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [-100, -100, number]
        files.append(folder / f"{number:04}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def draw_slices(count: int, size: int) -> Iterator[np.ndarray]:
    """Yield stored values int16 (size, size): a body with noise, in still air."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 15, (size, size))
        body = 1024 + 60 * np.sin(7 * x + number) + 40 * np.cos(9 * y) + noise
        yield np.where(np.hypot(x / 0.85, y / 0.65) < 1, body, 0).astype(np.int16)


@cache
def _encode(encoding: str, pictures: int, size: int) -> list[Dataset]:
    """Return slices to which the numbers of a series are still to be given."""
    return [ENCODINGS[encoding](_slice_of(pixels)) for pixels in draw_slices(pictures, size)]


def _slice_of(pixels: np.ndarray) -> Dataset:
    """Return an uncompressed CT slice with the attributes that readers look at."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{_ROOT}3"
    dataset.FrameOfReferenceUID = f"{_ROOT}4"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = str(INTERCEPT), "1"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], "1"
    dataset.PixelData = pixels.tobytes()
    return dataset


def _with_stream(dataset: Dataset, stream: bytes, syntax: UID) -> Dataset:
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _as_jpeg_ls(dataset: Dataset) -> Dataset:
    stream = imagecodecs.jpegls_encode(dataset.pixel_array.view(np.uint16))
    return _with_stream(dataset, bytes(stream), JPEGLSLossless)


def _as_jpeg_2000(dataset: Dataset) -> Dataset:
    array = dataset.pixel_array
    stream = imagecodecs.jpeg2k_encode(array, codecformat="j2k", reversible=True)
    return _with_stream(dataset, bytes(stream), JPEG2000Lossless)


def _as_rle(dataset: Dataset) -> Dataset:
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return dataset


ENCODINGS: dict[str, Callable[[Dataset], Dataset]] = {
    "uncompressed": lambda dataset: dataset,
    "jpeg_ls": _as_jpeg_ls,
    "jpeg_2000": _as_jpeg_2000,
    "rle": _as_rle,
}
