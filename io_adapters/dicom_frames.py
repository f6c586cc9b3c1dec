"""One DICOM object's frames as arrays: decoded, rescaled, colours as RGB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from io_adapters.dicom_attributes import first_number, frame_value, integer, value_of
from io_adapters.dicom_geometry import Placement, place_frames
from io_adapters.dicom_header import (
    PROJECTIONS,
    Role,
    check_picture,
    modality_of,
    parse,
    role_of,
)
from io_adapters.dicom_mosaic import count_tiles, place_tiles, take_apart
from io_adapters.dicom_pixels import check_size, decode
from io_adapters.dicom_volumes import Labels, label_frames, label_source
from io_adapters.parsers import guarded
from io_adapters.scan import UnsupportedError

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
_CT_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)
_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instance:
    """One DICOM object: its frames, and what of its header decides how they are shown."""

    uid: str
    number: int
    """InstanceNumber, the order of last resort."""
    modality: str | None
    head: bool
    """Whether BodyPartExamined says head or brain."""
    hounsfield: bool
    """Whether the values are CT numbers: a CT image, and not a screenshot of one."""
    invert: bool
    """MONOCHROME1: low values are bright."""
    window: tuple[float, float] | None
    """The window the file asks for."""
    flags: tuple[str, ...]
    """What a reader of the result should know about this object."""
    pixels: np.ndarray
    """(F, H, W) physical values, or (F, H, W, 3) uint8 RGB; the tiles of a mosaic are frames."""
    padding: np.ndarray | None
    """(F, H, W) booleans, True outside the field of view; None where there is no such thing."""
    numbers: tuple[int, ...]
    """The frame of the object that each of these is, from 1; the tiles of a mosaic share theirs."""
    placements: list[Placement | None]
    """One for each frame."""
    label_source: Dataset
    """What `label_frames` reads, once for the object or the tiles of a mosaic."""

    def labels(self) -> list[Labels]:
        """Return what tells each frame from others at its place."""
        count = max(self.numbers)
        return label_frames(self.label_source, count) * (len(self.numbers) // count)


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
        count, tiles = check_size(dataset), count_tiles(dataset)
        photometric = _photometric(dataset)
        stored = decode(dataset, count)
        if tiles > 1:
            stored = take_apart(stored.reshape(dataset.Rows, dataset.Columns), tiles)
        if photometric in _GREY:
            pixels, padding = _rescale(stored, dataset), _padding(stored, dataset)
        else:
            pixels, padding = _to_rgb(stored, dataset, photometric), None
        return Instance(
            uid=str(value_of(dataset, "SOPInstanceUID") or ""),
            number=integer(value_of(dataset, "InstanceNumber")),
            modality=modality_of(dataset),
            head=str(value_of(dataset, "BodyPartExamined") or "").upper()
            in {"HEAD", "BRAIN", "SKULL"},
            hounsfield=value_of(dataset, "SOPClassUID") in _CT_CLASSES and photometric in _GREY,
            invert=photometric == "MONOCHROME1",
            window=_file_window(dataset),
            flags=tuple(_flags(dataset, photometric, tiles)),
            pixels=pixels,
            padding=padding,
            numbers=(1,) * tiles if tiles > 1 else tuple(range(1, count + 1)),
            placements=place_tiles(dataset, tiles) if tiles > 1 else place_frames(dataset, count),
            label_source=label_source(dataset),
        )


def _flags(dataset: Dataset, photometric: str, tiles: int) -> Iterator[str]:
    role = role_of(dataset)
    if role is not Role.ORIGINAL:
        yield str(role)
    if photometric == "MONOCHROME1":
        yield "mono1"
    if tiles > 1:
        yield f"mosaic_{tiles}"
    burned_in = value_of(dataset, "BurnedInAnnotation")
    if burned_in == "YES":
        yield "burned_in_text"
    elif burned_in != "NO" and (role is Role.CAPTURE or modality_of(dataset) in PROJECTIONS):
        yield "burned_in_text_possible"


def _photometric(dataset: Dataset) -> str:
    photometric = str(value_of(dataset, "PhotometricInterpretation") or "")
    if photometric not in _GREY | _COLOUR:
        raise UnsupportedError("the image has no photometric interpretation that is handled")
    return photometric


def _rescale(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return physical values (F, H, W): integers where the rescale keeps them whole."""
    if value_of(dataset, "ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset))
    scales = [_scale(dataset, frame) for frame in range(len(stored))]
    if stored.dtype.kind == "f" or any(
        slope != 1 or intercept != int(intercept) for slope, intercept in scales
    ):
        out = np.empty(stored.shape, dtype=np.float32)
        for plane, target, (slope, intercept) in zip(stored, out, scales, strict=True):
            target[...] = plane.astype(np.float64) * slope + intercept
        return out
    shifts = [int(intercept) for _, intercept in scales]
    if not any(shifts):
        return stored
    aligned = np.require(stored, requirements="A")  # the file's own bytes need not be
    low, high = int(aligned.min()) + min(shifts), int(aligned.max()) + max(shifts)
    dtype = np.dtype(_smallest_integer(low, high))
    # The same bytes as the other type may wrap around, and the shift brings them back.
    same_size = dtype.itemsize == aligned.dtype.itemsize
    raw = aligned.view(dtype) if same_size else aligned.astype(dtype)
    shifted: np.ndarray = raw + np.array(shifts).astype(dtype)[:, None, None]
    return shifted


def _scale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """Return slope and intercept of one frame."""
    group = "PixelValueTransformationSequence"
    slope = frame_value(dataset, frame, group, "RescaleSlope")
    intercept = frame_value(dataset, frame, group, "RescaleIntercept")
    if slope is None:
        slope = value_of(dataset, "DoseGridScaling")
    pair = _number_or(slope, 1.0), _number_or(intercept, 0.0)
    if pair[0] == 0 or not np.isfinite(pair).all():
        raise UnsupportedError("the header's rescale makes no values of the pixels")
    return pair


def _number_or(value: object, default: float) -> float:
    """Return an attribute's number, `default` where it is empty, NaN where it is none."""
    if value in (None, "", b""):
        return default
    number = first_number(value)
    return np.nan if number is None else number


def _smallest_integer(low: int, high: int) -> type[np.integer]:
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return np.int64


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Return where stored values (F, H, W) are padding, None where none are."""
    value = value_of(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return None
    limit = value_of(dataset, "PixelPaddingRangeLimit")
    ends = [integer(end) for end in (value, value if limit is None else limit)]
    if stored.dtype.kind == "i":  # a file may store a negative number as a large one
        values, highest = 2 ** (8 * stored.dtype.itemsize), np.iinfo(stored.dtype).max
        ends = [end - values if end > highest else end for end in ends]
    mask = (stored >= min(ends)) & (stored <= max(ends))
    return mask if mask.any() else None


def _to_rgb(stored: np.ndarray, dataset: Dataset, photometric: str) -> np.ndarray:
    """Return uint8 RGB (F, H, W, 3) of colours of any depth."""
    colours, bits = stored, int(dataset.BitsStored)
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        # Entries of 8 bits may be stored in 16.
        deep = integer(dataset.RedPaletteColorLookupTableDescriptor[2]) > 8
        bits = 16 if colours.dtype.itemsize > 1 and (deep or colours.max() > 255) else 8
    if colours.ndim != 4 or colours.dtype.kind != "u":
        raise UnsupportedError("the colours of the image are not three unsigned numbers a pixel")
    return (colours >> max(0, bits - 8)).astype(np.uint8)


def _file_window(dataset: Dataset) -> tuple[float, float] | None:
    """Return the first window of the file as (low, high), None where it has none of any width."""
    group = "FrameVOILUTSequence"
    center = first_number(frame_value(dataset, 0, group, "WindowCenter"))
    width = first_number(frame_value(dataset, 0, group, "WindowWidth"))
    if center is None or width is None or width < 1:
        return None
    return center - width / 2, center + width / 2
