"""The headers that results refer to, cleaned so that their faults do not become ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.valuerep import validate_value

from io_adapters import storage
from io_adapters.dicom_header import parse
from io_adapters.dicom_output.findings import Source
from io_adapters.dicom_output.uids import derived_uid
from io_adapters.parsers import guarded
from io_adapters.scan import FileRef, Geometry, UnsupportedError

_REFERENCED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""Type 2: they have to be there, with or without a value."""
_KEPT_AS_THEY_ARE = frozenset({"PatientName", "PatientID", "AccessionNumber", "StudyID"})
"""By these an archive finds the patient, whatever their form."""
_SEXES = frozenset({"", "M", "F", "O"})
_CHECKED = frozenset({"AS", "CS", "DA", "DT", "LO", "SH", "TM"})
"""Value representations whose faults validators find; UIDs are used as they are."""
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_MAX_DRIFT = 0.5
"""Of a pixel, over the whole stack: the readers of volumes take the slices to be square to it."""


def read_sources(frames: Sequence[tuple[FileRef, int]], thickness: float) -> list[Source]:
    """Read the headers of a series again, in the order of its slices.

    Args:
        frames: The file and the frame in it, from 0, of every slice.
        thickness: Millimetres from slice to slice, for headers that do not say it.

    Raises:
        UnreadableError: a file is broken, or storage does not deliver it.
        UnsupportedError: a file does not say what it is, so that nothing can refer to it.
    """
    files = list(dict.fromkeys(file for file, _ in frames))
    headers = {}
    with guarded("a header of the series"):
        for file, content in zip(files, storage.read_all(files), strict=True):
            headers[file.uri] = clean_header(parse(content), thickness)
    return [Source(header=headers[file.uri], frame=frame) for file, frame in frames]


def clean_header(dataset: Dataset, thickness: float) -> Dataset:
    """Return a DICOM object made fit to be a source: no pixels, no private elements, UTF-8.

    What is absent and may be empty becomes empty, and so does what is malformed, unless it
    identifies the patient or the study. The object itself is changed.

    Args:
        dataset: A DICOM object.
        thickness: Millimetres, where the object has no slice thickness.

    Raises:
        UnsupportedError: it does not name its study, series, class or itself.
    """
    if not all(dataset.get(keyword) for keyword in _REFERENCED):
        raise UnsupportedError("the series does not name its study or its instances")
    for keyword in _PIXELS:
        if keyword in dataset:
            del dataset[keyword]
    dataset.remove_private_tags()
    _drop_malformed(dataset)
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _MAY_BE_EMPTY:
        if dataset.get(keyword) is None:
            setattr(dataset, keyword, "")
    if str(dataset.PatientSex) not in _SEXES:
        dataset.PatientSex = ""
    if not dataset.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = derived_uid("frame of reference", dataset.SeriesInstanceUID)
    if not dataset.get("SliceThickness"):
        dataset.SliceThickness = round(thickness, 6)
    return dataset


def _drop_malformed(dataset: Dataset) -> None:
    """Remove top-level values that cannot be parsed, or break the rules of their type."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            for value in element.value if element.VM > 1 else [element.value]:
                if element.VR in {"DS", "IS"} and value:
                    float(value)
                if element.VR in _CHECKED and element.keyword not in _KEPT_AS_THEY_ARE:
                    validate_value(element.VR, str(value or ""), pydicom.config.RAISE)
        except (ValueError, TypeError, OverflowError):
            del dataset[tag]


def find_obstacle(geometry: Geometry | None, sources: Sequence[Source]) -> str | None:
    """Return why slices are not a volume that every reader places alike, None if they are.

    A segmentation of tilted or uneven slices is right by its own header, and refused or moved by
    the programs that read it.
    """
    if len(sources) < 2:
        return "it is a single slice"
    if geometry is None:
        return "its slices are not evenly spaced, or do not say where they lie"
    if geometry.volumes is not None:
        return "it holds several volumes"
    files = {str(source.header.SOPInstanceUID) for source in sources}
    frames = {(str(source.header.SOPInstanceUID), source.frame) for source in sources}
    if len(files) not in {1, len(sources)} or len(frames) < len(sources):
        return "its slices are frames of several files, or tiles of one frame"
    if _drift(geometry) > _MAX_DRIFT:
        return "its slices are tilted against the direction they are stacked in"
    return None


def _drift(geometry: Geometry) -> float:
    """Return how many pixels the last slice is away from where it would be square to the first."""
    column, row, step = geometry.affine[:3, :3].T
    normal = np.cross(column, row)
    normal = normal / np.linalg.norm(normal)
    aside = np.linalg.norm(step - (step @ normal) * normal) * (geometry.shape[2] - 1)
    return float(aside / min(np.linalg.norm(column), np.linalg.norm(row)))
