"""One DICOM object's frames as arrays: decoded, rescaled, colours as RGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from io_adapters import codecs
from io_adapters.dicom_geometry import Placement, frame_value, place_frames
from io_adapters.dicom_header import check_picture, class_name, modality_of, parse, uid_name
from io_adapters.parsers import guarded
from io_adapters.scan import UnreadableError, UnsupportedError

_MAX_PIXELS = 16384**2
_MAX_FRAMES = 10_000
_MAX_BYTES = 4 * 2**30
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
_CT_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)
_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instance:
    """One DICOM object: its frames, and what of its header decides how they are shown."""

    uid: str
    digest: bytes
    """SHA-256 of the file."""
    number: int
    """InstanceNumber, the order of last resort."""
    modality: str | None
    head: bool
    """Whether BodyPartExamined says head or brain."""
    hounsfield: bool
    """Whether the values are CT numbers: a CT image, and not a screenshot of one."""
    localizer: bool
    invert: bool
    """MONOCHROME1: low values are bright."""
    window: tuple[float, float] | None
    """The window the file asks for."""
    pixels: np.ndarray
    """(F, H, W) physical values, or (F, H, W, 3) uint8 RGB."""
    padding: np.ndarray | None
    """(F, H, W) booleans, True outside the field of view; None where there is no such thing."""
    placements: list[Placement | None]
    """One for each frame."""


def read_instance(content: bytes) -> Instance:
    """Decode one DICOM file.

    Raises:
        UnreadableError: it is cut short or broken.
        UnsupportedError: it has no pixels, is larger than allowed, or in an encoding or colour
            model that is not handled.
    """
    dataset = parse(content)
    with guarded("the DICOM image"):
        check_picture(dataset)
        image_type = dataset.get("ImageType") or ()
        if "MOSAIC" in image_type:
            raise UnsupportedError("a mosaic, many slices tiled into one picture, is not handled")
        count = _check_size(dataset)
        photometric = _photometric(dataset)
        stored = _decode(dataset, count)
        if photometric in _GREY:
            pixels, padding = _rescale(stored, dataset), _padding(stored, dataset)
        else:
            pixels, padding = _to_rgb(stored, dataset, photometric), None
        return Instance(
            uid=str(dataset.get("SOPInstanceUID") or ""),
            digest=hashlib.sha256(content).digest(),
            number=_integer(dataset.get("InstanceNumber"), default=0),
            modality=modality_of(dataset),
            head=str(dataset.get("BodyPartExamined") or "").upper() in {"HEAD", "BRAIN", "SKULL"},
            hounsfield=dataset.SOPClassUID in _CT_CLASSES and photometric in _GREY,
            localizer="LOCALIZER" in image_type,
            invert=photometric == "MONOCHROME1",
            window=_file_window(dataset),
            pixels=pixels,
            padding=padding,
            placements=place_frames(dataset, count),
        )


def _check_size(dataset: Dataset) -> int:
    """Check what the header announces before any memory is taken; return the frame count."""
    rows, columns = _integer(dataset.get("Rows")), _integer(dataset.get("Columns"))
    if not any(keyword in dataset for keyword in _PIXEL_DATA):
        if rows and columns:
            raise UnreadableError("the file ends before its pixels: it was cut short")
        raise UnsupportedError(f"{class_name(dataset)} has no pixels")
    count = max(1, _integer(dataset.get("NumberOfFrames"), default=1))
    samples = _integer(dataset.get("SamplesPerPixel"), default=1)
    size = rows * columns * samples * count * _integer(dataset.get("BitsAllocated")) // 8
    if rows < 1 or columns < 1 or samples not in {1, 3}:
        raise UnreadableError("the header announces an image of no size or of no known layout")
    if rows * columns > _MAX_PIXELS or count > _MAX_FRAMES or size > _MAX_BYTES:
        raise UnsupportedError(
            f"the image is too large: {count} frames of {rows}x{columns} pixels, {size} bytes"
        )
    # Half of the colours are left out in YBR_FULL_422, a third of the bytes.
    size = size * 2 // 3 if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else size
    stored = next(len(dataset[name].value or b"") for name in _PIXEL_DATA if name in dataset)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and stored < size:
        raise UnreadableError(
            f"the file was cut short: {stored} of {size} bytes of pixels are left"
        )
    return count


def _photometric(dataset: Dataset) -> str:
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    if photometric not in _GREY | _COLOUR:
        raise UnsupportedError("the image has no photometric interpretation that is handled")
    return photometric


def _decode(dataset: Dataset, count: int) -> np.ndarray:
    """Return the stored values (F, H, W) or (F, H, W, 3), YBR already as RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    name = uid_name(syntax, "an unknown transfer syntax")
    plugin = codecs.plugin_for(syntax, _integer(dataset.get("BitsStored")))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnsupportedError(f"pixels stored as {name} cannot be decoded") from None
    with guarded(f"pixel data ({name})"):
        options = {"decoding_plugin": plugin, "allow_excess_frames": False}
        stored: np.ndarray = decoder.as_array(dataset, **options)[0]
    colours = (3,) if dataset.get("SamplesPerPixel", 1) == 3 else ()
    return stored.reshape(count, dataset.Rows, dataset.Columns, *colours)


def _rescale(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return physical values (F, H, W): integers where the rescale keeps them whole."""
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset))
    scales = [_scale(dataset, frame) for frame in range(len(stored))]
    if stored.dtype.kind == "f" or any(
        slope != 1 or intercept != int(intercept) for slope, intercept in scales
    ):
        out = np.empty(stored.shape, dtype=np.float32)
        for plane, target, (slope, intercept) in zip(stored, out, scales, strict=True):
            target[...] = plane.astype(np.float64) * slope + intercept
        return out
    shifts = np.array([int(intercept) for _, intercept in scales])
    if not shifts.any():
        return stored
    shifted: np.ndarray = stored.astype(np.int64) + shifts[:, None, None]
    return np.asarray(shifted, dtype=_smallest_integer(int(shifted.min()), int(shifted.max())))


def _scale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """Return slope and intercept of one frame."""
    group = "PixelValueTransformationSequence"
    slope = frame_value(dataset, frame, group, "RescaleSlope")
    intercept = frame_value(dataset, frame, group, "RescaleIntercept")
    if slope is None:
        slope = dataset.get("DoseGridScaling")
    pair = _float(slope, default=1.0), _float(intercept, default=0.0)
    if pair[0] == 0 or not np.isfinite(pair).all():
        raise UnsupportedError("the header's rescale makes no values of the pixels")
    return pair


def _smallest_integer(low: int, high: int) -> type[np.integer]:
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return np.int64


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Return where stored values (F, H, W) are padding, None where none are."""
    value = dataset.get("PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return None
    first = _integer(value)
    limit = _integer(dataset.get("PixelPaddingRangeLimit"), default=first)
    if stored.dtype.kind == "i" and max(first, limit) > np.iinfo(stored.dtype).max:
        return None
    mask = (stored >= min(first, limit)) & (stored <= max(first, limit))
    return mask if mask.any() else None


def _to_rgb(stored: np.ndarray, dataset: Dataset, photometric: str) -> np.ndarray:
    """Return uint8 RGB (F, H, W, 3) of colours of any depth."""
    colours, bits = stored, int(dataset.BitsStored)
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        bits = 8 * colours.dtype.itemsize
    if colours.ndim != 4 or colours.dtype.kind != "u":
        raise UnsupportedError("the colours of the image are not three unsigned numbers a pixel")
    return (colours >> max(0, bits - 8)).astype(np.uint8)


def _file_window(dataset: Dataset) -> tuple[float, float] | None:
    """Return the first window of the file as (low, high), None where it has none of any width."""
    group = "FrameVOILUTSequence"
    center = _float(frame_value(dataset, 0, group, "WindowCenter"), default=np.nan)
    width = _float(frame_value(dataset, 0, group, "WindowWidth"), default=np.nan)
    if not np.isfinite([center, width]).all() or width < 1:
        return None
    return center - width / 2, center + width / 2


def _float(value: object, *, default: float) -> float:
    """Return a number, or the first of several, of an attribute."""
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return default
    return float(numbers[0]) if numbers.size and value is not None else default


def _integer(value: object, *, default: int = 0) -> int:
    number = _float(value, default=float(default))
    return int(number) if np.isfinite(number) else default
