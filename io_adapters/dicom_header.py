"""DICOM headers: parsing bytes we do not trust, and the few attributes scans are grouped by."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UID_dictionary,
)

from io_adapters.dicom_attributes import numbers, value_of
from io_adapters.dicom_source import DicomSource
from io_adapters.naming import keyed_hash
from io_adapters.parsers import guarded
from io_adapters.scan import UnreadableError, UnsupportedError

# Validation has nothing to offer a reader: it warns, and quotes the value it warns about.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_LAYOUT = (
    "SOPClassUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
)
"""What slices of one volume have in common to the letter."""
_LAST = "BitsAllocated"
"""Every image has it, and it comes after everything else that is read here."""
GROUPING = (
    "Manufacturer",
    *_LAYOUT,
    _LAST,
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ConcatenationUID",
    "ImageOrientationPatient",
    "PixelSpacing",
)
"""What is read of a file to find out which scan it belongs to."""

PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "US", "XC", "ES", "OP"})
"""Modalities whose files are pictures of their own, not slices of a volume."""

_NO_PICTURE = frozenset({SegmentationStorage, ParametricMapStorage}) | {
    UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation
    UID("1.2.840.10008.5.1.4.1.1.77.1.6"),  # whole slide: its frames are tiles
}


_CAPTURES = frozenset(
    {
        SecondaryCaptureImageStorage,
        MultiFrameSingleBitSecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)


class Role(StrEnum):
    """What part an image plays in its series; the values are flags of scans."""

    ORIGINAL = ""
    """A slice as the scanner made it."""
    LOCALIZER = "localizer"
    """A picture that the scan was planned on; it lies across the slices."""
    DERIVED = "derived"
    """Computed from other images: a reformatted view, a map."""
    CAPTURE = "secondary_capture"
    """A screenshot or a page of text."""


MANUFACTURER = "zsad"
"""What results say made them: sent back to where scans come from, they are found there again."""


class OwnResultError(UnsupportedError):
    """An object that this software made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What of a DICOM file decides to which scan it belongs.

    It is kept from run to run, so it holds no UID and nothing else that leads to a patient.
    """

    study: str
    """Keyed hash of StudyInstanceUID; empty where the file has none, as below."""
    series: str
    instance: str
    """Only of files that are pictures of their own."""
    modality: str | None
    series_number: int | None
    role: Role
    layout: str
    """Hash of size, colours, SOP class and frames: what slices of a volume share to the letter."""
    grid: tuple[tuple[float, ...], tuple[float, ...]]
    """ImageOrientationPatient and PixelSpacing, which they share but for rounding; empty where
    the top level of the object has none."""

    def to_json(self) -> str:
        """Return this as one JSON string: a list of the values."""
        return json.dumps([getattr(self, name) for name in self.__slots__])

    @classmethod
    def from_json(cls, text: str) -> Header:
        """Rebuild what `to_json` wrote."""
        fields = dict(zip(cls.__slots__, json.loads(text), strict=True))
        orientation, spacing = fields["grid"]
        fields["grid"] = tuple(orientation), tuple(spacing)
        return cls(**fields | {"role": Role(fields["role"])})


def parse(content: bytes, *, tags: Sequence[str] | None = None) -> Dataset:
    """Parse a DICOM file, or with `tags` only those attributes of its header.

    A file without preamble and magic word is given a chance, since old archives hold many; it
    has to name its SOP class to pass.

    Raises:
        UnreadableError: it is not DICOM, or broken.
        UnsupportedError: it inflates to more than a header may.
    """
    with guarded("the DICOM file"):
        dataset = pydicom.dcmread(
            DicomSource(content),
            force=content[128:132] != b"DICM",
            stop_before_pixels=tags is not None,
            specific_tags=list(tags) if tags is not None else None,
        )
        if not re.fullmatch(r"[0-9.]+", str(value_of(dataset, "SOPClassUID"))):
            raise UnreadableError("the DICOM header is cut short, or names no SOP class")
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _native_syntax(dataset)
    return dataset


def read_header(head: bytes) -> Header | None:
    """Return the attributes a file is grouped by, or None if `head` ends before them.

    Args:
        head: The file, or its first bytes.

    Raises:
        UnreadableError: it is not DICOM, or broken.
        UnsupportedError: it is a segmentation or another object that is no picture.
    """
    return header_of(parse(head, tags=GROUPING))


def header_of(dataset: Dataset) -> Header | None:
    """Return the attributes an instance is grouped by, or None if it has no pixels.

    Raises:
        UnreadableError: it is broken.
        UnsupportedError: it is a segmentation or another object that is no picture.
    """
    with guarded("the DICOM header"):
        check_picture(dataset)
        if "Rows" not in dataset or _LAST not in dataset:
            return None
        number, modality = dataset.get("SeriesNumber"), modality_of(dataset)
        return Header(
            study=_hashed(dataset, "StudyInstanceUID"),
            series=_hashed(dataset, "SeriesInstanceUID"),
            instance=_hashed(dataset, "SOPInstanceUID") if modality in PROJECTIONS else "",
            modality=modality,
            series_number=None if number is None else int(number),
            role=role_of(dataset),
            layout=_layout(dataset),
            grid=(
                _numbers(dataset, "ImageOrientationPatient", 6),
                _numbers(dataset, "PixelSpacing", 2),
            ),
        )


def is_directory(head: bytes) -> bool:
    """Tell whether the bytes begin a DICOMDIR, whatever its name is."""
    return MediaStorageDirectoryStorage.encode() in head[132:1024]


def check_picture(dataset: Dataset) -> None:
    """Check that an object's SOP class is one whose frames are pictures.

    Raises:
        UnsupportedError: it is not.
        OwnResultError: it shows what was found, not what there was.
    """
    if dataset.get("Manufacturer") == MANUFACTURER:
        raise OwnResultError("a result of zsad is not a picture to score")
    if value_of(dataset, "SOPClassUID") in _NO_PICTURE:
        raise UnsupportedError(f"{class_name(dataset)} is not a picture to score")


def class_name(dataset: Dataset) -> str:
    """Return the standard's name of an object's SOP class; a private class stays unnamed."""
    return uid_name(value_of(dataset, "SOPClassUID"), "an object of a private class")


def uid_name(uid: object, unknown: str) -> str:
    """Return the standard's name of a UID, and `unknown` for any other text in its place."""
    return str(UID_dictionary[str(uid)][0]) if str(uid) in UID_dictionary else unknown


def modality_of(dataset: Dataset) -> str | None:
    """Return the modality ("CT"), None if absent or not of the form the standard gives it."""
    modality = str(value_of(dataset, "Modality") or "")
    return modality if re.fullmatch(r"[A-Z][A-Z0-9]{1,7}", modality) else None


def image_type(dataset: Dataset) -> tuple[str, ...]:
    """Return the values of ImageType, none where it is absent."""
    value: Any = value_of(dataset, "ImageType") or ()
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value)


def role_of(dataset: Dataset) -> Role:
    """Return what part an image plays in its series, by its SOP class and ImageType."""
    kinds = image_type(dataset)
    if "LOCALIZER" in kinds:
        return Role.LOCALIZER
    if value_of(dataset, "SOPClassUID") in _CAPTURES:
        return Role.CAPTURE
    return Role.DERIVED if "DERIVED" in kinds[:1] else Role.ORIGINAL


def _hashed(dataset: Dataset, keyword: str) -> str:
    uid = str(dataset.get(keyword) or "")
    return keyed_hash(uid) if uid else ""


def _layout(dataset: Dataset) -> str:
    """Return what `_LAYOUT` says; the parts of a split object share its UID, not their size."""
    values = {keyword: str(dataset.get(keyword) or "") for keyword in _LAYOUT}
    if whole := dataset.get("ConcatenationUID"):
        values["NumberOfFrames"] = str(whole)
    return keyed_hash("\n".join(values.values()))


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = numbers(dataset.get(keyword), count)
    return () if found is None else tuple(found.tolist())


def _native_syntax(dataset: Dataset) -> UID:
    """Return the uncompressed transfer syntax that the parser found in a file that names none."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
