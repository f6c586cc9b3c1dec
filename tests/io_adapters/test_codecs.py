"""Compressed pixels: what an encoder wrote comes back, through one decoder on all machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dicom_files as files
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from io_adapters import codecs
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, ScanRef, UnreadableError

GREY = (np.arange(24 * 32, dtype=np.uint16) * 5).reshape(24, 32)
COLOUR = np.stack([GREY % 251, GREY % 241, GREY % 239], -1).astype(np.uint8)


def compressed(
    folder: Path, pixels: np.ndarray, stream: bytes, syntax: UID, **attributes: object
) -> ScanRef:
    instance = files.make_instance(pixels, Modality="OT", **attributes)
    instance.PixelData = encapsulate([stream])
    instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = syntax
    return files.write_files(folder, [instance])


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(JPEGLosslessSV1, lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16)),
     (JPEGLSLossless, imagecodecs.jpegls_encode),
     (JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True)),
     (HTJ2KLossless, lambda a: imagecodecs.htj2k_encode(a, reversible=True))],
    ids=["jpeg lossless", "jpeg-ls", "jpeg 2000", "htj2k"],
)  # fmt: skip
def test_lossless_grey_comes_back(
    tmp_path: Path, syntax: UID, encode: Callable[[np.ndarray], bytes]
) -> None:
    scan = read_scan(compressed(tmp_path, GREY, encode(GREY), syntax))
    np.testing.assert_array_equal(scan.pixels[0], GREY)


@pytest.mark.parametrize(
    ("syntax", "encode", "photometric"),
    [(JPEGLSLossless, imagecodecs.jpegls_encode, "RGB"),
     (JPEG2000, lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, mct=True), "YBR_RCT")],
    ids=["jpeg-ls", "jpeg 2000"],
)  # fmt: skip
def test_lossless_colours_come_back(
    tmp_path: Path, syntax: UID, encode: Callable[[np.ndarray], bytes], photometric: str
) -> None:
    stream = encode(COLOUR)
    ref = compressed(tmp_path, COLOUR, stream, syntax, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(read_scan(ref).pixels[0], COLOUR)


def test_signed_values_come_back(tmp_path: Path) -> None:
    signed = GREY.astype(np.int16) - 1000
    stream = imagecodecs.jpegls_encode(signed.view(np.uint16))
    scan = read_scan(compressed(tmp_path, signed, stream, JPEGLSLossless))
    np.testing.assert_array_equal(scan.pixels[0], signed)


def test_twelve_bit_jpeg_comes_back_nearly(tmp_path: Path) -> None:
    stream = imagecodecs.jpeg_encode(GREY, level=99, bitspersample=12)
    scan = read_scan(
        compressed(tmp_path, GREY, stream, JPEGExtended12Bit, BitsStored=12, HighBit=11)
    )
    assert np.abs(scan.pixels[0].astype(int) - GREY).max() < 40


def test_a_stream_of_another_size_than_the_header_is_refused(tmp_path: Path) -> None:
    stream = imagecodecs.jpegls_encode(GREY[:12])
    with pytest.raises(UnreadableError):
        read_scan(compressed(tmp_path, GREY, stream, JPEGLSLossless))


@pytest.mark.parametrize(
    "stream",
    [imagecodecs.jpegls_encode(GREY), imagecodecs.ljpeg_encode(GREY, bitspersample=16),
     imagecodecs.jpeg_encode(COLOUR), imagecodecs.jpeg2k_encode(GREY),
     imagecodecs.jpeg2k_encode(GREY, codecformat="j2k"), imagecodecs.htj2k_encode(GREY)],
    ids=["jpeg-ls", "jpeg lossless", "jpeg", "jp2", "j2k", "htj2k"],
)  # fmt: skip
def test_the_announced_size_is_found(stream: bytes) -> None:
    assert codecs.frame_size(stream) == (24, 32)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\0" * 40])
def test_a_stream_without_header_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match="no header"):
        codecs.frame_size(stream)


def test_the_decoder_does_not_depend_on_what_else_is_installed() -> None:
    assert codecs.plugin_for(RLELossless, 16) == "imagecodecs"
    assert codecs.plugin_for(JPEGExtended12Bit, 12) == "imagecodecs"
    assert codecs.plugin_for(JPEGExtended12Bit, 8) == "pillow"
    assert codecs.plugin_for(JPEGBaseline8Bit, 8) == "pillow"
    assert codecs.plugin_for(pydicom.uid.ExplicitVRLittleEndian, 16) == ""


@pytest.mark.parametrize("name", ["693_J2KI", "examples_jpeg2k", "JPEG2000", "SC_rgb_gdcm_KY"])
def test_jpeg_2000_is_what_pillow_decodes(name: str) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"
    dataset = pydicom.dcmread(path)
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    ours, _ = decoder.as_array(dataset, decoding_plugin="imagecodecs")
    oracle, _ = decoder.as_array(dataset, decoding_plugin="pillow")
    np.testing.assert_array_equal(ours, oracle)
    assert read_scan(files.ref_of(Kind.DICOM, path)).pixels.shape[1:3] == ours.shape[:2]
