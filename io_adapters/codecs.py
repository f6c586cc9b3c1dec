"""Compressed DICOM pixels: imagecodecs as a decoder plugin of pydicom.

Every encoding has one decoder, asked for by name, whatever else is installed. It is the one with a
free licence that survives corrupt frames, and neither fills in what is missing nor says nothing
about it; others abort the process, spin, or raise what no `except Exception` catches. So each frame
is checked against the header before its decoder runs, RLE is put together here, and HTJ2K goes
through OpenJPEG: OpenJPH swallows its errors. pydicom finds `is_available` and
`DECODER_DEPENDENCIES` by name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_PLUGIN = "imagecodecs"
_JPEG = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})
_JPEG_LS = frozenset({JPEGLSLossless, JPEGLSNearLossless})
_JPEG_2000 = frozenset({JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K})
DECODER_DEPENDENCIES = {
    syntax: (_PLUGIN,) for syntax in (*_JPEG, *_JPEG_LS, *_JPEG_2000, RLELossless)
}

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG's SOF markers, and that of JPEG-LS."""
_START_OF_SCAN, _JFIF, _ADOBE = 0xDA, 0xE0, 0xEE
_ADOBE_COLOURS = {b"\0": "RGB", b"\1": "YCBCR"}
_CODESTREAM = b"\xff\x4f\xff\x51"
"""How JPEG 2000 begins, inside of whatever file format is around it."""
_CONTAINER, _BOX_HEADER = b"\0\0\0\x0cjP  ", 8
"""How a JP2 file begins, and the bytes that the header of each of its boxes has."""
_END = b"\xff\xd9"
"""The last marker of a frame, in JPEG, JPEG-LS and JPEG 2000 alike."""
_LONGEST_PADDING = 16
"""Bytes: some writers pad frames beyond the one byte that makes their length even."""


class FrameHeader(NamedTuple):
    """What a compressed frame says of itself."""

    rows: int
    columns: int
    samples: int
    bits: int
    """Of a sample."""
    colours: str | None = None
    """"YCBCR" or "RGB" where a JPEG's application markers say so."""


def is_available(uid: str) -> bool:
    """Tell pydicom whether this plugin decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def plugin_for(syntax: UID) -> str:
    """Return which of pydicom's plugins decodes a transfer syntax, "" where none is needed."""
    return _PLUGIN if syntax.is_compressed else ""


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Decode one frame for pydicom's runner, and tell the runner what came out.

    Args:
        source: The compressed frame.
        runner: pydicom's DecodeRunner: rows, columns, samples and options of the image.

    Raises:
        ValueError: the frame is cut short, or has another size than the header says.
    """
    if runner.transfer_syntax == RLELossless:
        runner.set_option("planar_configuration", 1)
        return _decode_rle(source, runner)
    header = read_frame_header(source)
    # Codecs allocate what the frame announces, so it is compared before they run.
    if header[:3] != (runner.rows, runner.columns, runner.samples_per_pixel):
        raise ValueError("the compressed frame has another size than the header says")
    if header.bits > runner.bits_allocated:
        raise ValueError("the compressed frame has more bits than the header says")
    # Without its end a frame is cut short: JPEG-LS reads on for ever, JPEG 2000 makes up the rest.
    if source.rfind(_END, -_LONGEST_PADDING - len(_END)) < 0:
        raise ValueError("the compressed frame ends early")
    frame = _DECODE[runner.transfer_syntax](source, runner, header)
    samples = frame.shape[2] if frame.ndim == 3 else 1
    if (*frame.shape[:2], samples) != header[:3]:
        raise ValueError("the decoded frame has another shape than the header says")
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    if samples > 1:
        runner.set_option("planar_configuration", 0)
    return frame.tobytes()


def check_containers(encapsulated: bytes, count: int) -> None:
    """Check the file format around JPEG 2000 frames, before pydicom walks through its boxes.

    pydicom (3.0.2, `get_j2k_parameters`) walks for ever where a box says that it has no length.

    Args:
        encapsulated: All frames of an object, in their fragments.
        count: How many there are.

    Raises:
        ValueError: a box is shorter than its own header.
    """
    if _CONTAINER not in encapsulated:
        return
    for frame in generate_frames(encapsulated, number_of_frames=count):
        position = len(_CONTAINER) + 4 if frame.startswith(_CONTAINER) else len(frame)
        while position < len(frame) and frame[position + 4 : position + 8] != b"jp2c":
            length = _integer(frame, position, 4)
            if length < _BOX_HEADER:
                raise ValueError("the compressed frame has a broken file format around it")
            position += length


def read_frame_header(source: bytes) -> FrameHeader:
    """Return what a JPEG, JPEG-LS or JPEG 2000 frame announces.

    Raises:
        ValueError: the frame has no header.
    """
    start = source.find(_CODESTREAM)
    if start >= 0 and len(source) > start + 42:
        return _jpeg2000_header(source[start : start + 43])
    if source[:2] == b"\xff\xd8":
        return _jpeg_header(source)
    raise ValueError("the compressed frame has no header")


def _jpeg2000_header(stream: bytes) -> FrameHeader:
    right, bottom, left, top = (_integer(stream, at, 4) for at in range(8, 24, 4))
    return FrameHeader(bottom - top, right - left, _integer(stream, 40, 2), (stream[42] & 127) + 1)


def _jpeg_header(source: bytes) -> FrameHeader:
    """Walk the markers up to the frame header, and on to the scan for what follows it."""
    colours: str | None = None
    frame: FrameHeader | None = None
    position = 2
    while source[position : position + 1] == b"\xff" and len(source) > position + 11:
        marker = source[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        content = source[position + 4 : position + 2 + _integer(source, position + 2, 2)]
        if marker in _FRAME_HEADERS and frame is not None:
            raise ValueError("the compressed frame has two headers")
        if marker in _FRAME_HEADERS:
            rows, columns = _integer(content, 1, 2), _integer(content, 3, 2)
            frame = FrameHeader(rows, columns, _integer(content, 5, 1), _integer(content, 0, 1))
        elif marker == _JFIF and content.startswith(b"JFIF\0"):
            colours = "YCBCR"
        elif marker == _ADOBE and content.startswith(b"Adobe") and colours is None:
            colours = _ADOBE_COLOURS.get(content[11:12])
        elif marker == _START_OF_SCAN:
            break
        position += 4 + len(content)
    if frame is None:
        raise ValueError("the compressed frame has no header")
    return frame._replace(colours=colours)


def _decode_jpeg(source: bytes, runner: Any, header: FrameHeader) -> np.ndarray:
    """Decode baseline, extended or lossless JPEG, colours as they are stored."""
    if header.samples == 1:
        return np.asarray(imagecodecs.jpeg_decode(source))
    told = "RGB" if runner.photometric_interpretation == "RGB" else "YCBCR"
    colours = header.colours or told
    runner.set_option("photometric_interpretation", "RGB" if colours == "RGB" else "YBR_FULL")
    return np.asarray(imagecodecs.jpeg_decode(source, colorspace=colours, outcolorspace=colours))


def _decode_jpeg_ls(source: bytes, _runner: Any, _header: FrameHeader) -> np.ndarray:
    return np.asarray(imagecodecs.jpegls_decode(source))


def _decode_jpeg_2000(source: bytes, runner: Any, _header: FrameHeader) -> np.ndarray:
    """Decode JPEG 2000, high-throughput or not; the file format around it says nothing in DICOM."""
    if runner.photometric_interpretation in {"YBR_ICT", "YBR_RCT"}:
        runner.set_option("photometric_interpretation", "RGB")
    return np.asarray(imagecodecs.jpeg2k_decode(source[source.find(_CODESTREAM) :]))


def _decode_rle(source: bytes, runner: Any) -> bytes:
    """Return the samples plane by plane, from a segment for each of their bytes, highest first."""
    count, *starts = struct.unpack_from("<16L", source)
    samples, size = runner.samples_per_pixel, runner.bits_allocated // 8
    if count != samples * size:
        raise ValueError("the RLE frame has another number of segments than the header says")
    pixels = runner.rows * runner.columns
    planes = np.empty((samples, pixels, size), dtype=np.uint8)
    for n, (start, end) in enumerate(zip(starts, [*starts[1:count], len(source)], strict=False)):
        segment = imagecodecs.packbits_decode(source[start:end], out=pixels + _LONGEST_PADDING)
        sample, byte = divmod(n, size)
        planes[sample, :, size - 1 - byte] = np.frombuffer(segment, np.uint8, pixels)
    return planes.tobytes()


def _integer(source: bytes, at: int, size: int) -> int:
    return int.from_bytes(source[at : at + size])


_DECODE: dict[UID, Callable[[bytes, Any, FrameHeader], np.ndarray]] = {
    **dict.fromkeys(_JPEG, _decode_jpeg),
    **dict.fromkeys(_JPEG_LS, _decode_jpeg_ls),
    **dict.fromkeys(_JPEG_2000, _decode_jpeg_2000),
}

for _syntax in DECODER_DEPENDENCIES:  # once, at import: pydicom's registry is not thread-safe
    get_decoder(_syntax).add_plugin(_PLUGIN, (__name__, "decode_frame"))
