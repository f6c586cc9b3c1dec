"""Compressed DICOM pixels: imagecodecs as a decoder plugin of pydicom.

It is the one decoder with a free licence that survives corrupt frames in all these encodings:
others abort the process, or raise what no `except Exception` catches. So it is asked for by name,
whatever else is installed. pydicom finds `is_available` and `DECODER_DEPENDENCIES` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
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
_DECODE: dict[UID, Callable[[bytes], np.ndarray]] = {
    JPEGExtended12Bit: imagecodecs.jpeg_decode,
    JPEGLossless: imagecodecs.jpeg_decode,
    JPEGLosslessSV1: imagecodecs.jpeg_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
    HTJ2KLossless: imagecodecs.htj2k_decode,
    HTJ2KLosslessRPCL: imagecodecs.htj2k_decode,
    HTJ2K: imagecodecs.htj2k_decode,
}
DECODER_DEPENDENCIES = {syntax: (_PLUGIN,) for syntax in (*_DECODE, RLELossless)}
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG's SOF markers, and that of JPEG-LS."""


def is_available(uid: str) -> bool:
    """Tell pydicom whether this plugin decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def plugin_for(syntax: UID, bits: int) -> str:
    """Return which of pydicom's plugins decodes a transfer syntax, "" where none is needed.

    Args:
        syntax: The transfer syntax.
        bits: BitsStored of the image; Pillow has JPEG of 8 bits with all its colour models.
    """
    if not syntax.is_compressed:
        return ""
    if syntax == JPEGBaseline8Bit or (syntax == JPEGExtended12Bit and bits == 8):
        return "pillow"
    return _PLUGIN


def decode_frame(source: bytes, runner: Any) -> bytes:
    """Decode one frame for pydicom's runner, and tell the runner what came out.

    Args:
        source: The compressed frame.
        runner: pydicom's DecodeRunner: rows, columns, samples and options of the image.

    Raises:
        ValueError: the frame has another size than the header says.
    """
    if runner.transfer_syntax == RLELossless:
        runner.set_option("planar_configuration", 1)
        return bytes(imagecodecs.dicomrle_decode(source, f"<u{runner.bits_allocated // 8}"))
    # Codecs allocate what the stream announces, so it is compared before they run.
    if frame_size(source) != (runner.rows, runner.columns):
        raise ValueError("the compressed frame has another size than the header says")
    frame = _DECODE[runner.transfer_syntax](source)
    samples = frame.shape[2] if frame.ndim == 3 else 1
    if frame.shape[:2] != (runner.rows, runner.columns) or samples != runner.samples_per_pixel:
        raise ValueError("the decoded frame has another shape than the header says")
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    if samples > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation in {"YBR_ICT", "YBR_RCT"}:
            runner.set_option("photometric_interpretation", "RGB")
    return frame.tobytes()


def frame_size(source: bytes) -> tuple[int, int]:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream announces.

    Raises:
        ValueError: the stream has no frame header.
    """
    size_marker = source.find(b"\xff\x4f\xff\x51")
    if size_marker >= 0:
        fields = source[size_marker + 8 : size_marker + 24]
        right, bottom, left, top = (int.from_bytes(fields[n : n + 4]) for n in range(0, 16, 4))
        return bottom - top, right - left
    position = 2
    while source[position : position + 1] == b"\xff":
        marker = source[position + 1 : position + 2]
        if marker and marker[0] in _FRAME_HEADERS:
            fields = source[position + 5 : position + 9]
            return int.from_bytes(fields[:2]), int.from_bytes(fields[2:])
        position += 2 + int.from_bytes(source[position + 2 : position + 4])
    raise ValueError("the compressed frame has no header")


for _syntax in DECODER_DEPENDENCIES:  # once, at import: pydicom's registry is not thread-safe
    get_decoder(_syntax).add_plugin(_PLUGIN, (__name__, "decode_frame"))
