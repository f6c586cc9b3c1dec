"""Compressed pixels: what an encoder wrote comes back, through one decoder on all machines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_files as files
import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    AllTransferSyntaxes,
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

from io_adapters import codecs
from io_adapters.dicom_frames import read_instance
from io_adapters.scan import ScanError, UnreadableError

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
Encoder = Callable[[np.ndarray], bytes]

_y, _x = np.mgrid[0:24, 0:32]
GREY = (2000 + 600 * np.sin(_x / 5) + 800 * np.cos(_y / 4) + (7 * _x + 3 * _y) % 5).astype(
    np.uint16
)
"""12 bits, smooth with some texture, no symmetry."""
SIGNED = GREY.astype(np.int16) - 2000
BYTES = (GREY // 14).astype(np.uint8)
COLOUR = np.stack([BYTES, BYTES[::-1] // 2, BYTES[:, ::-1] // 3 + 90], -1)


def jpeg_2000(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, codecformat="j2k", reversible=True, mct=False))


def jpeg_2000_file(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, codecformat="jp2", reversible=True))


def lossy_jpeg_2000(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, codecformat="j2k", level=50))


def lossless_jpeg(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(array, bitspersample=8 * array.itemsize))


def twelve_bit_jpeg(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg_encode(array, level=98, bitspersample=12))


def baseline_jpeg(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg_encode(array, level=98, subsampling="444"))


def rgb_jpeg(array: np.ndarray) -> bytes:
    return bytes(
        imagecodecs.jpeg_encode(
            array, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444"
        )
    )


def htj2k(array: np.ndarray) -> bytes:
    """By OpenJPH; what reads it is OpenJPEG."""
    return bytes(imagecodecs.htj2k_encode(array, reversible=True))


def lossy_htj2k(array: np.ndarray) -> bytes:
    return bytes(imagecodecs.htj2k_encode(array, reversible=False))


def rle(array: np.ndarray) -> bytes:
    instance = files.make_instance(array)
    instance.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return next(pydicom.encaps.generate_frames(instance.PixelData, number_of_frames=1))


STREAMS: dict[str, tuple[UID, bytes, np.ndarray]] = {
    "jpeg": (JPEGBaseline8Bit, baseline_jpeg(BYTES), BYTES),
    "jpeg_colour": (JPEGBaseline8Bit, baseline_jpeg(COLOUR), COLOUR),
    "jpeg_12": (JPEGExtended12Bit, twelve_bit_jpeg(GREY), GREY),
    "jpeg_lossless": (JPEGLosslessSV1, lossless_jpeg(GREY), GREY),
    "jpeg_ls": (JPEGLSLossless, imagecodecs.jpegls_encode(GREY), GREY),
    "jpeg_ls_colour": (JPEGLSLossless, imagecodecs.jpegls_encode(COLOUR), COLOUR),
    "jpeg_2000": (JPEG2000Lossless, jpeg_2000(GREY), GREY),
    "jp2": (JPEG2000Lossless, jpeg_2000_file(GREY), GREY),
    "htj2k": (HTJ2KLossless, htj2k(GREY), GREY),
    "rle": (RLELossless, rle(GREY), GREY),
}
"""A frame of every codec, and the picture it is about."""


def compressed(array: np.ndarray, content: bytes, syntax: UID, **attributes: Any) -> bytes:
    """Return a DICOM file with these pixel data."""
    instance = files.make_instance(array, Modality="OT", **attributes)
    instance.PixelData = content
    instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = syntax
    return files.encode(instance)


def decoded(array: np.ndarray, stream: bytes, syntax: UID, **attributes: Any) -> np.ndarray:
    """Return what is read of a file with one compressed frame that should be `array`."""
    return read_instance(compressed(array, encapsulate([stream]), syntax, **attributes)).pixels[0]


# What was written comes back


@pytest.mark.parametrize("array", [GREY, SIGNED, BYTES], ids=["uint16", "int16", "uint8"])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(JPEGLosslessSV1, lossless_jpeg), (JPEGLossless, lossless_jpeg),
     (JPEGLSLossless, imagecodecs.jpegls_encode), (JPEG2000Lossless, jpeg_2000),
     (JPEG2000, jpeg_2000_file), (HTJ2KLossless, htj2k), (HTJ2KLosslessRPCL, htj2k),
     (HTJ2K, htj2k), (RLELossless, rle)],
    ids=["jpeg sv1", "jpeg", "jpeg-ls", "j2k", "jp2", "htj2k", "htj2k rpcl", "htj2k any", "rle"],
)  # fmt: skip
def test_lossless_grey_comes_back(syntax: UID, encode: Encoder, array: np.ndarray) -> None:
    signed_codec = encode in {jpeg_2000, jpeg_2000_file, htj2k, rle}
    stream = encode(array if signed_codec else array.view(f"u{array.itemsize}"))
    found = decoded(array, stream, syntax)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("bits", [10, 12, 13])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(JPEGLosslessSV1, lambda a, n: imagecodecs.ljpeg_encode(a, bitspersample=n)),
     (JPEG2000Lossless,
      lambda a, n: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True,
                                             bitspersample=n)),
     (RLELossless, lambda a, n: rle(a))],
    ids=["jpeg", "j2k", "rle"],
)  # fmt: skip
def test_negative_numbers_of_fewer_bits_come_back(
    syntax: UID, encode: Callable[[np.ndarray, int], bytes], bits: int
) -> None:
    """Old writers hand a codec the bits of signed numbers as if they were unsigned."""
    array = SIGNED // 2 ** (13 - bits)
    stream = encode(array.view(np.uint16) & (2**bits - 1), bits)
    found = decoded(array, stream, syntax, BitsStored=bits, HighBit=bits - 1)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("syntax", "encode", "within"),
    [(JPEGBaseline8Bit, baseline_jpeg, 4), (JPEGExtended12Bit, baseline_jpeg, 4),
     (JPEGLSNearLossless, lambda a: imagecodecs.jpegls_encode(a, level=3), 3),
     (JPEG2000, lossy_jpeg_2000, 5), (HTJ2K, lossy_htj2k, 2)],
    ids=["jpeg", "jpeg extended", "jpeg-ls", "j2k", "htj2k"],
)  # fmt: skip
def test_lossy_grey_comes_back_nearly(syntax: UID, encode: Encoder, within: int) -> None:
    found = decoded(BYTES, encode(BYTES), syntax)
    assert np.abs(found.astype(int) - BYTES).max() <= within


def test_lossy_values_do_not_wrap_around() -> None:
    """A codec overshoots at an edge from black to white; 256 must not become 0."""
    edge = np.where(_x // 8 % 2, 255, 0).astype(np.uint8)
    for syntax, encode in ((HTJ2K, lossy_htj2k), (JPEG2000, lossy_jpeg_2000)):
        assert np.abs(decoded(edge, encode(edge), syntax).astype(int) - edge).max() < 30


def test_twelve_bit_jpeg_comes_back_nearly() -> None:
    found = decoded(GREY, twelve_bit_jpeg(GREY), JPEGExtended12Bit, BitsStored=12, HighBit=11)
    assert np.abs(found.astype(int) - GREY).max() < 16


# Colours


@pytest.mark.parametrize(
    ("syntax", "encode", "photometric"),
    [(JPEGLSLossless, imagecodecs.jpegls_encode, "RGB"),
     (JPEG2000Lossless, jpeg_2000, "RGB"),
     (JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a, reversible=True, mct=True),
      "YBR_RCT"),
     (HTJ2KLossless, htj2k, "YBR_RCT"), (RLELossless, rle, "RGB")],
    ids=["jpeg-ls", "j2k", "j2k rct", "htj2k rct", "rle"],
)  # fmt: skip
def test_lossless_colours_come_back(syntax: UID, encode: Encoder, photometric: str) -> None:
    found = decoded(COLOUR, encode(COLOUR), syntax, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(found, COLOUR)


@pytest.mark.parametrize("stored", ["RGB", "YCBCR"])
@pytest.mark.parametrize("marker", ["none", "JFIF", "Adobe"])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("frames", [1, 2])
def test_jpeg_colours_are_what_its_markers_say_and_else_the_header(
    stored: str, marker: str, photometric: str, frames: int
) -> None:
    if marker == "none" and (stored == "RGB") != (photometric == "RGB"):
        return  # a file that says something else than it is
    if marker == "JFIF" and stored == "RGB":
        return  # there is no such thing
    stream = baseline_jpeg(COLOUR) if stored == "YCBCR" else rgb_jpeg(COLOUR)
    stream = with_marker(stream, marker, stored)
    content = encapsulate([stream] * frames)
    instance = read_instance(
        compressed(
            COLOUR,
            content,
            JPEGBaseline8Bit,
            PhotometricInterpretation=photometric,
            NumberOfFrames=frames,
        )
    )
    for frame in instance.pixels:
        assert np.abs(frame.astype(int) - COLOUR).max() <= 6


def with_marker(stream: bytes, marker: str, stored: str) -> bytes:
    """Return a JPEG with another application marker than the one it has, or without any."""
    body = stream[4 + int.from_bytes(stream[4:6]) :]
    segment = {
        "none": b"",
        "JFIF": b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        "Adobe": b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([stored == "YCBCR"]),
    }[marker]
    return stream[:2] + segment + body


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_rle_16bit", "SC_rgb_rle_32bit", "SC_rgb_rle_2frame", "SC_rgb_jpeg_gdcm",
     "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm", "SC_rgb_dcmtk_+eb+cr",
     "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+n2", "SC_rgb_dcmtk_+eb+cy+np",
     "SC_rgb_dcmtk_+eb+cy+s2", "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_gdcm_KY",
     "SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample", "SC_ybr_full_422_uncompressed"],
)  # fmt: skip
def test_one_colour_picture_in_many_encodings(name: str) -> None:
    """Stripes of pure colours: a colour model mixed up is off by a hundred everywhere."""
    stripes = packaged("SC_rgb_rle").astype(int)
    off = np.abs(packaged(name) - stripes)
    assert off.mean() < (0.01 if "rle" in name or name == "SC_rgb_jpeg_gdcm" else 3.5)


# Independent decoders


@pytest.mark.parametrize(
    ("name", "within"),
    [("693_J2KI", 1), ("J2K_pixelrep_mismatch", 0), ("JPEG2000", 1), ("MR_small_jp2klossless", 0),
     ("MR_small_jpeg_ls_lossless", 0), ("MR_small_RLE", 0), ("JPEGLSNearLossless_08", 0),
     ("JPEGLSNearLossless_16", 0), ("SC_rgb_jpeg_gdcm", 0), ("GDCMJ2K_TextGBR", 0),
     ("examples_jpeg2k", 0), ("SC_rgb_jls_lossy_line", 0), ("image_dfl", 0)],
)  # fmt: skip
def test_values_are_those_of_simpleitk(name: str, within: float) -> None:
    image = sitk.ReadImage(str(PACKAGED / f"{name}.dcm"))
    expected = sitk.GetArrayFromImage(image).astype(np.float64)
    found = read_instance((PACKAGED / f"{name}.dcm").read_bytes()).pixels
    np.testing.assert_allclose(found.astype(np.float64), expected.reshape(found.shape), atol=within)


@pytest.mark.parametrize("name", ["693_J2KI", "examples_jpeg2k", "JPEG2000", "SC_rgb_gdcm_KY"])
def test_jpeg_2000_is_what_pillow_decodes(name: str) -> None:
    ours, theirs = ours_and_pillows(name)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg", "SC_rgb_small_odd_jpeg", "examples_ybr_color"]
)
def test_jpeg_is_what_pillow_decodes(name: str) -> None:
    ours, theirs = ours_and_pillows(name)
    np.testing.assert_array_equal(ours, theirs)


def ours_and_pillows(name: str) -> tuple[np.ndarray, np.ndarray]:
    dataset = pydicom.dcmread(PACKAGED / f"{name}.dcm")
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    ours, _ = decoder.as_array(dataset, decoding_plugin="imagecodecs")
    theirs, _ = decoder.as_array(dataset, decoding_plugin="pillow")
    return ours, theirs


def packaged(name: str) -> np.ndarray:
    """Return the first frame of one of pydicom's files."""
    return read_instance((PACKAGED / f"{name}.dcm").read_bytes()).pixels[0]


# Frames, fragments and offset tables


def encapsulated(streams: list[bytes], table: str, fragments: int) -> dict[str, Any]:
    """Return the attributes that hold frames; `table` is "basic", "extended" or "none"."""
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(streams)
        return {
            "PixelData": data, "ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths
        }  # fmt: skip
    return {
        "PixelData": encapsulate(streams, fragments_per_frame=fragments, has_bot=table == "basic")
    }


@pytest.mark.parametrize("codec", ["jpeg", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k", "rle"])
@pytest.mark.parametrize(
    ("table", "fragments"),
    [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)],
)
def test_frames_are_found_in_their_fragments(codec: str, table: str, fragments: int) -> None:
    if codec == "rle" and (table, fragments) == ("none", 3):
        return  # nothing says where a frame ends; and RLE has one fragment a frame
    syntax, _, array = STREAMS[codec]
    encode = {
        "jpeg": baseline_jpeg, "jpeg_lossless": lossless_jpeg, "jpeg_ls": imagecodecs.jpegls_encode,
        "jpeg_2000": jpeg_2000, "htj2k": htj2k, "rle": rle,
    }[codec]  # fmt: skip
    frames = [array, np.ascontiguousarray(array[::-1]), array // 2]
    attributes = encapsulated([encode(frame) for frame in frames], table, fragments)
    content = attributes.pop("PixelData")
    found = read_instance(compressed(array, content, syntax, NumberOfFrames=3, **attributes)).pixels
    for frame, expected in zip(found, frames, strict=True):
        assert np.abs(frame.astype(int) - expected).max() <= (4 if codec == "jpeg" else 0)


@pytest.mark.parametrize("codec", STREAMS)
def test_a_frame_that_is_missing_is_no_frame(codec: str) -> None:
    syntax, stream, array = STREAMS[codec]
    content = compressed(array, encapsulate([stream, stream]), syntax, NumberOfFrames=3)
    with pytest.raises(UnreadableError):
        read_instance(content)


@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff", b"\0\0\0\0"])
@pytest.mark.parametrize("codec", STREAMS)
def test_padding_after_a_frame_changes_nothing(codec: str, padding: bytes) -> None:
    syntax, stream, array = STREAMS[codec]
    padded = stream + padding
    if codec == "rle" and padding == b"\xff":
        return  # not one byte more may be there, as it would be pixels
    np.testing.assert_array_equal(decoded(array, padded, syntax), decoded(array, stream, syntax))


# Damage


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("codec", STREAMS)
def test_a_frame_that_is_cut_short_is_refused_at_once(codec: str, kept: float) -> None:
    """Some decoders fill in what is missing, and JPEG-LS looks for it for ever."""
    syntax, stream, array = STREAMS[codec]
    with pytest.raises(UnreadableError):
        decoded(array, stream[: int(len(stream) * kept)], syntax)


@pytest.mark.timeout(20)
def test_a_file_format_without_a_codestream_is_refused_at_once() -> None:
    with pytest.raises(UnreadableError):
        decoded(GREY, STREAMS["jp2"][1][:12] + bytes(400) + b"\xff\xd9", JPEG2000Lossless)


@pytest.mark.parametrize("codec", STREAMS)
def test_a_frame_of_another_size_than_the_header_is_refused(codec: str) -> None:
    syntax, stream, array = STREAMS[codec]
    for wrong in (array[:12], array[:, :30], np.concatenate([array, array])):
        with pytest.raises(UnreadableError):
            decoded(np.ascontiguousarray(wrong), stream, syntax)


@pytest.mark.parametrize("codec", ["jpeg_12", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "rle"])
def test_a_frame_of_more_bits_than_the_header_is_refused(codec: str) -> None:
    syntax, stream, _ = STREAMS[codec]
    with pytest.raises(UnreadableError):
        decoded(BYTES, stream, syntax)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg_colour", "jpeg_ls", "jpeg_ls_colour", "rle"])
def test_a_frame_of_other_colours_than_the_header_is_refused(codec: str) -> None:
    syntax, stream, array = STREAMS[codec]
    with pytest.raises(UnreadableError):
        decoded(BYTES if array.ndim == 3 else COLOUR, stream, syntax)


@pytest.mark.parametrize("codec", STREAMS)
@settings(deadline=20_000)
@given(data=st.data())
def test_damage_gives_a_picture_of_the_right_size_or_a_reason(
    codec: str, data: st.DataObject
) -> None:
    """Codecs have no checksum; but none hangs, ends the process, or makes up a size."""
    syntax, stream, array = STREAMS[codec]
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([len(damaged), min(100, len(damaged))]))  # or its head only
        at = data.draw(st.integers(0, end))
        length = data.draw(st.integers(0, 3))
        damaged[at : at + length] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(UnreadableError):
        assert decoded(array, bytes(damaged), syntax).shape == array.shape


@pytest.mark.timeout(20)
@pytest.mark.parametrize("side", [32, 512])
def test_a_container_with_a_box_without_length_is_refused_at_once(side: int) -> None:
    """pydicom would look for the end of such a box for ever; of a large file it gets views."""
    array = np.random.default_rng(0).integers(0, 2**16, (side, side), np.uint16)
    syntax, stream = JPEG2000Lossless, jpeg_2000_file(array)
    np.testing.assert_array_equal(decoded(array, stream, syntax), array)
    start = stream.index(b"jp2h") - 4
    damaged = stream[:start] + bytes(4) + stream[start + 4 :]
    with pytest.raises(UnreadableError):
        decoded(array, damaged, syntax)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
@settings(deadline=20_000)
@given(at=st.integers(0, 300), damage=st.binary(max_size=4), dropped=st.integers(0, 4))
def test_damage_between_frames_gives_pictures_of_the_right_size_or_a_reason(
    table: str, at: int, damage: bytes, dropped: int
) -> None:
    flat = np.full_like(GREY, 7)  # so the frames are short, and what is hit is between them
    attributes = encapsulated([imagecodecs.jpegls_encode(flat)] * 3, table, 1)
    content = attributes.pop("PixelData")
    file = compressed(flat, content, JPEGLSLossless, NumberOfFrames=3, **attributes)
    start = file.rindex(content[:8]) - 200 + at  # the offset tables come before the pixels
    with contextlib.suppress(ScanError):
        found = read_instance(file[:start] + damage + file[start + dropped :])
        assert found.pixels.shape == (3, *GREY.shape)


# What a frame says of itself


@pytest.mark.parametrize(
    ("codec", "samples", "bits"),
    [("jpeg", 1, 8), ("jpeg_colour", 3, 8), ("jpeg_12", 1, 12), ("jpeg_lossless", 1, 16),
     ("jpeg_ls", 1, 16), ("jpeg_ls_colour", 3, 8), ("jpeg_2000", 1, 16), ("jp2", 1, 16),
     ("htj2k", 1, 16)],
)  # fmt: skip
def test_the_announced_size_is_found(codec: str, samples: int, bits: int) -> None:
    assert codecs.read_frame_header(STREAMS[codec][1])[:4] == (24, 32, samples, bits)


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9" * 9, b"\0" * 40])
def test_a_stream_without_header_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match="no header"):
        codecs.read_frame_header(stream)


def test_a_stream_with_two_headers_is_refused() -> None:
    stream = STREAMS["jpeg"][1]
    at = stream.index(b"\xff\xc0")
    header = stream[at : at + 13]
    with pytest.raises(ValueError, match="two headers"):
        codecs.read_frame_header(stream[:at] + header + stream[at:])


# Which decoder


def test_every_compression_of_still_images_has_one_decoder() -> None:
    """So it does not matter what else is installed."""
    decoders = []
    for syntax in AllTransferSyntaxes:
        with contextlib.suppress(NotImplementedError):
            decoders.append(get_decoder(syntax).UID)
    for syntax in decoders:
        expected = "imagecodecs" if syntax.is_compressed else ""
        assert codecs.plugin_for(syntax) == expected
        assert codecs.is_available(syntax) == bool(expected)
        assert not expected or "imagecodecs" in get_decoder(syntax).available_plugins
    assert sum(syntax.is_compressed for syntax in decoders) >= 12


def test_no_package_is_loaded_that_may_not_be() -> None:
    """GPL, or apt to end the process."""
    assert not {"gdcm", "libjpeg", "pylibjpeg"} & set(sys.modules)
