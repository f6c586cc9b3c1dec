"""The stored values of a DICOM object: what it announces checked first, then decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.pixels import get_decoder

from io_adapters import codecs
from io_adapters.dicom_attributes import first_number, integer, value_of
from io_adapters.dicom_header import class_name, uid_name
from io_adapters.parsers import guarded
from io_adapters.scan import UnreadableError, UnsupportedError

MAX_PIXELS = 16384**2
"""Of a frame."""
MAX_FRAMES = 10_000
MAX_BYTES = 4 * 2**30
"""Of all frames, decoded."""
MAX_RATIO = 1000
"""Decoded to compressed bytes: pictures reach 100, and empty ones not much more."""
HARMLESS_BYTES = 2**28
"""Decoded; below this a ratio means nothing."""
_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_OPTIONS = {
    "Rows": "rows",
    "Columns": "columns",
    "SamplesPerPixel": "samples_per_pixel",
    "PhotometricInterpretation": "photometric_interpretation",
    "PlanarConfiguration": "planar_configuration",
    "BitsAllocated": "bits_allocated",
    "BitsStored": "bits_stored",
    "PixelRepresentation": "pixel_representation",
}
"""DICOM's attributes, and pydicom's names for them."""
_DEPTHS = frozenset({1, 8, 16, 32, 64})


def check_size(dataset: Dataset) -> int:
    """Check what a header announces before any memory is taken; return the number of frames.

    Raises:
        UnreadableError: there are fewer pixels than announced, or they have no known layout.
        UnsupportedError: there are no pixels, or too many.
    """
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    keyword = _keyword(dataset)
    if keyword is None and rows and columns:
        raise UnreadableError("the file ends before its pixels: it was cut short")
    if keyword is None:
        raise UnsupportedError(f"{class_name(dataset)} has no pixels")
    count = _count_frames(dataset)
    samples, bits = _number(dataset, "SamplesPerPixel", 1), _number(dataset, "BitsAllocated")
    if rows < 1 or columns < 1 or samples not in {1, 3} or bits not in _DEPTHS:
        raise UnreadableError("the header announces an image of no size or of no known layout")
    values = rows * columns * samples * count
    size = values * max(1, bits // 8)
    if rows * columns > MAX_PIXELS or count > MAX_FRAMES or size > MAX_BYTES:
        raise UnsupportedError(
            f"the image is too large: {count} frames of {rows}x{columns} pixels, {size} bytes; "
            f"at most {MAX_FRAMES} frames of {MAX_PIXELS} pixels, {MAX_BYTES} bytes are read"
        )
    stored = len(dataset.get_item(keyword).value or b"")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_ratio(size, stored)
    else:
        _check_stored(stored, values * bits // 8, dataset)
    return count


def decode(dataset: Dataset, count: int) -> np.ndarray:
    """Return the stored values (F, H, W) or (F, H, W, 3), YBR already as RGB; maybe read-only.

    Args:
        dataset: An object whose size is checked.
        count: How many frames it has.

    Raises:
        UnreadableError: the pixels are broken.
        UnsupportedError: there is no decoder for them.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    name = uid_name(syntax, "an unknown transfer syntax")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnsupportedError(f"pixels stored as {name} cannot be decoded") from None
    with guarded(f"pixel data ({name})"):
        keyword = _keyword(dataset)
        pixels = dataset.get_item(keyword)
        content = pixels.value
        if syntax.is_compressed:
            content = bytes(content)  # a large value is a view, in which nothing can be searched
            codecs.check_containers(content, count)
        # Given a dataset, pydicom would convert every attribute once more.
        stored: np.ndarray = decoder.as_array(
            content,
            decoding_plugin=codecs.plugin_for(syntax),
            allow_excess_frames=False,
            view_only=True,
            pixel_keyword=keyword,
            pixel_vr=pixels.VR or "OW",
            number_of_frames=count,
            **_options(dataset),
        )[0]
        colours = stored.shape[-1:] if value_of(dataset, "SamplesPerPixel") == 3 else ()
        return stored.reshape(count, *stored.shape[-2 - len(colours) :])


def _options(dataset: Dataset) -> dict[str, Any]:
    """Return what the header says of the pixels, as pydicom's decoders are told."""
    found = {option: value_of(dataset, keyword) for keyword, option in _OPTIONS.items()}
    if (offsets := value_of(dataset, "ExtendedOffsetTable")) is not None:
        found["extended_offsets"] = offsets, value_of(dataset, "ExtendedOffsetTableLengths")
    return {option: value for option, value in found.items() if value is not None}


def _count_frames(dataset: Dataset) -> int:
    """Return the number of frames, 1 where the header leaves it open."""
    said = value_of(dataset, "NumberOfFrames")
    if said in {None, "", b""}:
        return 1
    count = first_number(said)
    if count is None or count < 0:
        raise UnreadableError("the header's number of frames is none")
    return max(1, int(count))


def _keyword(dataset: Dataset) -> str | None:
    """Return the attribute that holds the pixels."""
    return next((name for name in _PIXEL_DATA if dataset.get_item(name) is not None), None)


def _number(dataset: Dataset, keyword: str, default: int = 0) -> int:
    return integer(value_of(dataset, keyword), default)


def _check_ratio(size: int, stored: int) -> None:
    """Refuse pixels that take far less room than pictures do: a few bytes can ask for gigabytes."""
    if size > HARMLESS_BYTES and size > MAX_RATIO * stored:
        raise UnsupportedError(
            f"the image would grow from {stored} to {size} bytes, over {MAX_RATIO} times"
        )


def _check_stored(stored: int, announced: int, dataset: Dataset) -> None:
    # Half of the colours are left out in YBR_FULL_422, a third of the bytes.
    subsampled = value_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422"
    announced = announced * 2 // 3 if subsampled else announced
    if stored < announced:
        raise UnreadableError(
            f"the file was cut short: {stored} of {announced} bytes of pixels are left"
        )
