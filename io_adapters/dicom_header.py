"""DICOM headers: parsing bytes we do not trust, and the few attributes scans are grouped by."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pydicom
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    ParametricMapStorage,
    SegmentationStorage,
    UID_dictionary,
)

from io_adapters.parsers import guarded
from io_adapters.scan import UnreadableError, UnsupportedError

# Validation has nothing to offer a reader: it warns, and quotes the value it warns about.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_MAX_INFLATED = 64 * 2**20
"""Inflating happens before anything else is known about a file, so it has to stay small."""

_GROUPING = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Rows",
)

PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA", "US", "XC", "ES", "OP"})
"""Modalities whose files are pictures of their own, not slices of a volume."""

_NO_PICTURE = frozenset({SegmentationStorage, ParametricMapStorage}) | {
    UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation
    UID("1.2.840.10008.5.1.4.1.1.77.1.6"),  # whole slide: its frames are tiles
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What of a DICOM file decides to which scan it belongs."""

    study_uid: str
    series_uid: str
    """Empty where the file has none."""
    instance_uid: str
    modality: str | None
    series_number: int | None


def parse(content: bytes, *, tags: Sequence[str] | None = None) -> Dataset:
    """Parse a DICOM file, or with `tags` only those attributes of its header.

    A file without preamble and magic word is given a chance, since old archives hold many; it
    has to name its SOP class to pass.

    Raises:
        UnreadableError: it is not DICOM, or broken.
        UnsupportedError: it inflates to more than a header may.
    """
    with guarded("the DICOM file"):
        _check_deflated(content)
        dataset = pydicom.dcmread(
            io.BytesIO(content),
            force=content[128:132] != b"DICM",
            stop_before_pixels=tags is not None,
            specific_tags=list(tags) if tags is not None else None,
        )
        if not re.fullmatch(r"[0-9.]+", str(dataset.get("SOPClassUID", ""))):
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
    dataset = parse(head, tags=_GROUPING)
    with guarded("the DICOM header"):
        check_picture(dataset)
        if "Rows" not in dataset:
            return None
        number = dataset.get("SeriesNumber")
        return Header(
            study_uid=str(dataset.get("StudyInstanceUID") or ""),
            series_uid=str(dataset.get("SeriesInstanceUID") or ""),
            instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            modality=modality_of(dataset),
            series_number=None if number is None else int(number),
        )


def is_directory(head: bytes) -> bool:
    """Tell whether the bytes begin a DICOMDIR, whatever its name is."""
    return MediaStorageDirectoryStorage.encode() in head[132:1024]


def check_picture(dataset: Dataset) -> None:
    """Check that an object's SOP class is one whose frames are pictures.

    Raises:
        UnsupportedError: it is not.
    """
    if dataset.get("SOPClassUID") in _NO_PICTURE:
        raise UnsupportedError(f"{class_name(dataset)} is not a picture to score")


def class_name(dataset: Dataset) -> str:
    """Return the standard's name of an object's SOP class; a private class stays unnamed."""
    return uid_name(dataset.get("SOPClassUID"), "an object of a private class")


def uid_name(uid: object, unknown: str) -> str:
    """Return the standard's name of a UID, and `unknown` for any other text in its place."""
    return str(UID_dictionary[str(uid)][0]) if str(uid) in UID_dictionary else unknown


def modality_of(dataset: Dataset) -> str | None:
    """Return the modality ("CT"), None if absent or not of the form the standard gives it."""
    modality = str(dataset.get("Modality") or "")
    return modality if re.fullmatch(r"[A-Z][A-Z0-9]{1,7}", modality) else None


def _native_syntax(dataset: Dataset) -> UID:
    """Return the uncompressed transfer syntax that the parser found in a file that names none."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check_deflated(content: bytes) -> None:
    """Refuse a deflated file that inflates beyond the limit, before the parser inflates it."""
    meta_end = 144 + int.from_bytes(content[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in content[132 : min(meta_end, 4096)]:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(content[meta_end:], _MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise UnsupportedError(f"the deflated file holds more than {_MAX_INFLATED >> 20} MB")
