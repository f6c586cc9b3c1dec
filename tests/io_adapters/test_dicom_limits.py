"""Files that ask for more than there is: each is refused before it takes memory, with a reason."""

from __future__ import annotations

import resource
import zlib
from typing import Any

import dicom_files as files
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from io_adapters import dicom_pixels, dicom_source
from io_adapters.dicom_frames import read_instance
from io_adapters.dicom_header import parse, read_header
from io_adapters.scan import ScanError, UnreadableError, UnsupportedError

PIXELS = np.arange(48, dtype=np.int16).reshape(6, 8)
MIB = 2**20


def file_of(**attributes: Any) -> bytes:
    """Return a slice whose header says something else than is there."""
    return files.encode(files.make_instance(PIXELS, **attributes))


def compressed(syntax: str, stream: bytes, frames: int = 1, **attributes: Any) -> bytes:
    instance = files.make_instance(PIXELS, NumberOfFrames=frames, **attributes)
    instance.PixelData = encapsulate([stream] * frames)
    instance["PixelData"].is_undefined_length = True
    instance.file_meta.TransferSyntaxUID = syntax
    return files.encode(instance)


@pytest.mark.parametrize(
    ("announced", "named"),
    [
        ({"Rows": 65535, "Columns": 65535}, "1 frames of 65535x65535 pixels.*at most.*268435456"),
        ({"NumberOfFrames": 10_001}, "10001 frames.*at most 10000 frames"),
        ({"NumberOfFrames": 9999, "Rows": 999, "Columns": 999}, "bytes; at most.*4294967296 bytes"),
        ({"BitsAllocated": 64, "Rows": 16384, "Columns": 16384, "NumberOfFrames": 3}, "too large"),
    ],
)
def test_an_announced_size_beyond_a_limit_names_it(announced: dict[str, int], named: str) -> None:
    before = peak_memory()
    with pytest.raises(UnsupportedError, match=named):
        read_instance(file_of(**announced))
    assert peak_memory() - before < 64 * MIB


def peak_memory() -> int:
    """Return the most memory this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "announced",
    [{"Rows": 0}, {"Columns": 0}, {"SamplesPerPixel": 2}, {"SamplesPerPixel": 65535},
     {"BitsAllocated": 0}, {"BitsAllocated": 12}, {"Rows": None}],
)  # fmt: skip
def test_an_announced_layout_that_is_none_is_unreadable(announced: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError, match="no size or of no known layout"):
        read_instance(file_of(**announced))


@pytest.mark.parametrize(
    "announced", [{"Rows": 7}, {"NumberOfFrames": 2}, {"BitsAllocated": 32, "BitsStored": 32}]
)
def test_more_pixels_than_there_are_is_a_file_cut_short(announced: dict[str, int]) -> None:
    with pytest.raises(UnreadableError, match=r"cut short: 96 of \d+ bytes"):
        read_instance(file_of(**announced))


@pytest.mark.parametrize(
    "syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless]
)
def test_a_few_bytes_do_not_become_gigabytes(syntax: str) -> None:
    before = peak_memory()
    with pytest.raises(UnsupportedError, match="over 1000 times"):
        read_instance(compressed(syntax, b"bomb", Rows=16384, Columns=16384))
    assert peak_memory() - before < 64 * MIB


def test_frames_together_do_not_grow_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_pixels, "HARMLESS_BYTES", 2**12)
    with pytest.raises(UnsupportedError, match="from 3592 to 6291456 bytes"):
        read_instance(compressed(RLELossless, bytes(100), frames=32, Rows=256, Columns=384))


def test_a_segment_of_rle_stops_where_its_pixels_end() -> None:
    """128 times the size of what is stored, if it were let."""
    run = b"\x81\x00" * 10_000
    header = np.zeros(16, "<u4")
    header[:3] = 2, 64, 64 + len(run)
    with pytest.raises(UnreadableError):
        read_instance(compressed(RLELossless, header.tobytes() + run + run))


# Deflated files


def deflated(pixels: np.ndarray, meta: bytes = b"") -> bytes:
    """Return a deflated file, with more file meta information in front of its own."""
    instance = files.make_instance(pixels)
    instance.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = files.encode(instance)
    return content[:132] + meta + content[132:] if meta else content


def group_length(value: int) -> bytes:
    return b"\x02\x00\x00\x00UL\x04\x00" + value.to_bytes(4, "little")


FILE_META = {
    "plain": b"",
    "wrong group length": group_length(2),
    "long private information": b"\x02\x00\x02\x01OB\x00\x00\x00\x00\x01\x00" + bytes(65536),
}


@pytest.mark.parametrize("meta", FILE_META.values(), ids=list(FILE_META))
def test_a_deflated_bomb_is_refused_however_its_meta_information_looks(
    meta: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_source, "MAX_INFLATED", MIB)
    fine, bomb = (deflated(np.zeros((side, side), np.int16), meta) for side in (600, 1200))
    assert len(bomb) < 70_000 + len(meta)
    assert read_instance(fine).pixels.shape == (1, 600, 600)
    for opened in (parse, read_header, read_instance):
        with pytest.raises(UnsupportedError, match="more than the 1 MB"):
            opened(bomb)


def test_a_deflated_bomb_takes_no_memory() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = deflated(PIXELS)
    start = 144 + int.from_bytes(content[140:144], "little")
    before = peak_memory()
    with pytest.raises(UnsupportedError, match="more than the 64 MB"):
        read_instance(content[:start] + 1024 * zeros)
    assert peak_memory() - before < 256 * MIB


def test_a_deflated_file_that_is_cut_short_is_no_picture() -> None:
    content = deflated(np.arange(3600, dtype=np.int16).reshape(60, 60))
    for kept in (0.1, 0.5, 0.9):
        with pytest.raises(ScanError):
            read_instance(content[: int(len(content) * kept)])


@pytest.mark.parametrize("kept", [2, 5, 8, 30])
def test_file_meta_information_that_is_cut_short_is_unreadable(kept: int) -> None:
    with pytest.raises(UnreadableError):
        read_instance(deflated(PIXELS)[: 132 + kept])


def test_a_file_meta_element_that_never_ends_is_unreadable() -> None:
    endless = b"\x02\x00\x02\x01SQ\x00\x00\xff\xff\xff\xff"
    with pytest.raises(UnreadableError, match="meta information is cut short"):
        read_instance(deflated(PIXELS, endless))
