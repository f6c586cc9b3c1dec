"""Images: a PNG, JPEG, BMP, TIFF or WebP file to a Scan of one slice, and a map to TIFF."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps

from io_adapters import sniff, storage, windows
from io_adapters.parsers import guarded
from io_adapters.scan import Kind, Scan, ScanRef, UnreadableError, UnsupportedError

_MAX_PIXELS = 200_000_000
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_ORIENTATION_TAG = 274
_DEPTHS = (8, 10, 12, 14, 16)
_DEFLATE_LEVEL = 3
"""Of maps: the usual 6 takes twice as long for a tenth less."""
_ROTATE_FLIP = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
"""EXIF orientation to what makes the picture upright: quarter turns to the left, then a mirror."""

# Pillow warns at this size and refuses at twice of it; below that the refusal is ours.
Image.MAX_IMAGE_PIXELS = _MAX_PIXELS


@dataclass(slots=True)
class _Picture:
    """A decoded page: (H, W) or (H, W, C) values and, apart from them, its opacity."""

    values: np.ndarray
    opacity: np.ndarray | None = None
    """(H, W) float32 in 0…1."""
    invert: bool = False
    flags: list[str] = field(default_factory=list)


def read_image(ref: ScanRef) -> Scan:
    """Read an image file into one slice, (1, H, W) grey or (1, H, W, 3) RGB, upright.

    Values of more than 8 bits stay as they are: the window carries their range. Transparent
    parts are laid on white, as on the web pages that CLIP's training pictures come from.

    Raises:
        UnreadableError: the file is cut short, broken, or no image.
        UnsupportedError: it has over 200 megapixels, or a pixel layout that has no one meaning.
    """
    content = storage.read_single(ref)
    with guarded("the image"):
        sniff.check_kind(Kind.IMAGE, ref.uri, content)
        picture = _decode(content)
        window = _window(picture)
        pixels = _flatten(picture, window[1])
        return Scan(
            pixels=np.ascontiguousarray(pixels)[None],
            window=window,
            invert=picture.invert,
            flags=tuple(picture.flags),
        )


def encode_tiff(values: np.ndarray) -> bytes:
    """Return a map (H, W), or maps (S, H, W) as pages, as a float32 TIFF, deflated, lossless."""
    target = io.BytesIO()
    tifffile.imwrite(
        target,
        np.asarray(values, dtype=np.float32),
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": _DEFLATE_LEVEL},
        predictor=True,
        metadata=None,
        software=False,
    )
    return target.getvalue()


def _decode(content: bytes) -> _Picture:
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[24:25] == b"\x10":
        return _decode_png16(content)
    if content[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return _decode_tiff(content)
    return _decode_pillow(content)


def _decode_pillow(content: bytes) -> _Picture:
    """Decode what has at most 8 bits a channel."""
    image = _open_pillow(content)
    flags = [f"page_1_of_{n}"] if (n := getattr(image, "n_frames", 1)) > 1 else []
    if image.getexif().get(_ORIENTATION_TAG, 1) in _ROTATE_FLIP:
        flags.append("exif_rotated")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        values = _as_mode(image, "RGBA")
        return _Picture(values[..., :3], values[..., 3].astype(np.float32) / 255, flags=flags)
    return _Picture(_as_mode(image, "L" if image.mode in {"1", "L"} else "RGB"), flags=flags)


def _as_mode(image: Image.Image, mode: str) -> np.ndarray:
    """Return the values of an image in one of Pillow's modes."""
    return np.asarray(image if image.mode == mode else image.convert(mode))  # it would copy


def _open_pillow(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UnsupportedError("the image has over 200 megapixels") from None
    _check_size(image.height, image.width)
    return image


def _decode_png16(content: bytes) -> _Picture:
    """Decode a 16-bit PNG, of which Pillow keeps 8 bits where it has colours."""
    orientation = _open_pillow(content).getexif().get(_ORIENTATION_TAG, 1)
    return _upright(_split_opacity(imagecodecs.png_decode(content)), orientation)


def _decode_tiff(content: bytes) -> _Picture:
    """Decode the first page of a TIFF; Pillow has the colour models, tifffile the number types."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if not len(file.pages):
            raise UnreadableError("the TIFF has no pages")
        page: Any = file.pages[0]
        _check_size(page.imagelength, page.imagewidth)
        plain = page.bitspersample in {1, 2, 4, 8} and page.sampleformat == 1
        picture = _decode_pillow(content) if plain else _decode_tiff_page(page)
        pages = len(file.pages)
    picture.flags = [flag for flag in picture.flags if not flag.startswith("page_")]
    if pages > 1:
        picture.flags.append(f"page_1_of_{pages}")
    return picture


def _decode_tiff_page(page: Any) -> _Picture:
    if page.photometric.name not in {"MINISBLACK", "MINISWHITE", "RGB"}:
        raise UnsupportedError("the TIFF has a colour model that is only handled with 8 bits")
    if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "iuf":
        raise UnsupportedError("the TIFF holds a volume, or something else than numbers")
    _check_channels(page.samplesperpixel)
    if len(page.dataoffsets) != np.prod(page.chunked):
        raise UnreadableError("the TIFF has other parts than its size asks for")
    values = page.asarray()
    if values.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        values = np.moveaxis(values, 0, -1)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    picture = _split_opacity(values)
    picture.invert = page.photometric.name == "MINISWHITE"
    tag = page.tags.get(_ORIENTATION_TAG)
    return _upright(picture, int(tag.value) if tag else 1)


def _split_opacity(values: np.ndarray) -> _Picture:
    """Take (H, W) or (H, W, C) apart into grey or colour, and the opacity where C is 2 or 4."""
    if values.ndim == 2:
        return _Picture(values)
    channels = values.shape[2]
    _check_channels(channels)
    colours = values[..., 0] if channels < 3 else values[..., :3]
    if channels in {1, 3}:
        return _Picture(colours)
    full = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    return _Picture(colours, np.clip(values[..., -1].astype(np.float32) / full, 0, 1))


def _upright(picture: _Picture, orientation: int) -> _Picture:
    if orientation in _ROTATE_FLIP:
        turns, mirror = _ROTATE_FLIP[orientation]
        for name in ("values", "opacity"):
            array = getattr(picture, name)
            if array is not None:
                turned = np.rot90(array, turns)
                setattr(picture, name, turned[:, ::-1] if mirror else turned)
        picture.flags.append("exif_rotated")
    return picture


def _window(picture: _Picture) -> tuple[float, float]:
    """Return the range the values were meant for, and flag what had to be inferred.

    Sixteen bits often hold twelve: the smallest depth that fits the brightest pixel is taken,
    since the file does not say.
    """
    values, flags = picture.values, picture.flags
    if values.dtype == np.uint8:
        return 0, 255
    if values.dtype == np.uint16:
        depth = next(bits for bits in _DEPTHS if int(values.max()) < 2**bits)
        flags.append(f"{depth}bit")
        return 0, 2**depth - 1
    low, high = windows.full_window(values)
    if values.dtype.kind == "f":
        lost = values.size - int(np.count_nonzero(np.isfinite(values)))
        if lost:
            flags.append(f"nonfinite_{lost}")
        if low >= 0 and high <= 1:
            return 0, 1
    flags.append("data_range")
    return low, high


def _flatten(picture: _Picture, white: float) -> np.ndarray:
    """Lay the picture on white where it is transparent."""
    values, opacity = picture.values, picture.opacity
    if opacity is None or opacity.min() >= 1:
        return values
    picture.flags.append("alpha")
    opacity = opacity if values.ndim == 2 else opacity[..., None]
    mixed = values * opacity + np.float32(white) * (1 - opacity)
    return np.asarray(np.rint(mixed) if values.dtype.kind in "iu" else mixed, dtype=values.dtype)


def _check_size(height: int, width: int) -> None:
    if height * width > _MAX_PIXELS:
        raise UnsupportedError(f"the image has {height}x{width} pixels, over 200 megapixels")


def _check_channels(channels: int) -> None:
    if channels not in {1, 2, 3, 4}:
        raise UnsupportedError(f"the image has {channels} channels; 1 to 4 are handled")
