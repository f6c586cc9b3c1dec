"""The values of DICOM images: rescale, windows, colours, encodings and damage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import dicom_files as files
import numpy as np
import pydicom
import pytest
from dicom_files import make_instance, make_series, read, read_one, volume
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from io_adapters import windows
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Scan, ScanError, UnreadableError, UnsupportedError

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"


# Values and windows


def test_a_whole_rescale_keeps_integers(tmp_path: Path) -> None:
    stored = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
    scan = read_one(tmp_path, stored, RescaleIntercept="-1024")
    assert scan.pixels.dtype == np.int16
    np.testing.assert_array_equal(scan.pixels[0], stored.astype(int) - 1024)


def test_every_slice_has_its_own_slope(tmp_path: Path) -> None:
    series = make_series(volume(), Modality="PT")
    for k, instance in enumerate(series):
        instance.RescaleSlope = str(0.5 * (k + 1))
    scan = read(tmp_path, series)
    assert scan.pixels.dtype == np.float32
    np.testing.assert_allclose(scan.pixels, volume() * 0.5 * np.arange(1, 6)[:, None, None])


def test_unused_high_bits_are_ignored(tmp_path: Path) -> None:
    stored = np.arange(48, dtype=np.uint16).reshape(6, 8)
    scan = read_one(tmp_path, stored | 0xF000, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(scan.pixels[0], stored)


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], [5, 50, 500, 5000], "US"
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    stored = np.arange(48, dtype=np.uint16).reshape(6, 8) % 4
    scan = read_one(
        tmp_path, stored, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table]
    )
    np.testing.assert_array_equal(scan.pixels[0], np.array([5, 50, 500, 5000])[stored])


@pytest.mark.parametrize(("part", "window"), [("HEAD", (0, 80)), ("CHEST", (-160, 240))])
def test_ct_has_the_window_of_its_body_part(
    tmp_path: Path, part: str, window: tuple[float, float]
) -> None:
    scan = read_one(tmp_path, volume()[0], BodyPartExamined=part, WindowCenter=1, WindowWidth=2)
    assert scan.window == window


def test_mr_has_one_robust_window_for_the_volume(tmp_path: Path) -> None:
    array = volume() + 1000
    array[0, 0, 0] = 30_000
    scan = read(tmp_path, make_series(array, Modality="MR", SOPClassUID=EnhancedMRImageStorage))
    assert (
        scan.window == windows.robust_window(array) and 0 < scan.window[0] < scan.window[1] < 30_000
    )


def test_padding_does_not_move_the_window(tmp_path: Path) -> None:
    array = np.arange(48, dtype=np.int16).reshape(6, 8)
    array[0] = -2000
    scan = read_one(
        tmp_path,
        array,
        Modality="OT",
        SOPClassUID=SecondaryCaptureImageStorage,
        PixelPaddingValue=-2000,
    )
    assert scan.window == (8, 47)


@pytest.mark.parametrize(
    ("center", "width", "window"),
    [("20", "10", (15, 25)), (["20", "9"], ["10", "5"], (15, 25)), ("9000", "10", (0, 47)),
     ("20", "0", (0, 47)), (None, None, (0, 47))],
)  # fmt: skip
def test_radiographs_have_the_window_of_the_file_if_it_shows_anything(
    tmp_path: Path, center: object, width: object, window: tuple[float, float]
) -> None:
    scan = read_one(
        tmp_path,
        np.arange(48, dtype=np.uint16).reshape(6, 8),
        Modality="DX",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        WindowCenter=center,
        WindowWidth=width,
    )
    assert scan.window == window


def test_monochrome1_is_inverted_for_display_and_not_in_value(tmp_path: Path) -> None:
    scan = read_one(tmp_path, volume()[0], PhotometricInterpretation="MONOCHROME1")
    assert scan.invert and scan.flags == ("mono1",)
    np.testing.assert_array_equal(scan.pixels[0], volume()[0])


def test_a_screenshot_of_a_ct_has_no_ct_window(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    scan = read_one(tmp_path, grey, SOPClassUID=SecondaryCaptureImageStorage)
    assert scan.window == (0, 255)


def test_colours_become_rgb_of_8_bits(tmp_path: Path) -> None:
    colour = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    scan = read_one(tmp_path / "8", colour, Modality="OT")
    np.testing.assert_array_equal(scan.pixels[0], colour)
    deep = read_one(tmp_path / "16", colour.astype(np.uint16) << 8, Modality="OT")
    np.testing.assert_array_equal(deep.pixels, scan.pixels)
    assert deep.pixels.dtype == np.uint8 and deep.window == (0, 255)


# Encodings and damage


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
def test_transfer_syntaxes_change_no_voxel(tmp_path: Path, syntax: str) -> None:
    series = make_series(volume())
    for instance in series:
        if syntax == RLELossless:
            instance.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            instance.PixelData = np.frombuffer(instance.PixelData, "<i2").astype(">i2").tobytes()
            instance["PixelData"].VR = "OW"
        instance.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read(tmp_path, series).pixels, volume())


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [("MR_small_RLE", "MR_small"), ("MR_small_jp2klossless", "MR_small"),
     ("MR_small_jpeg_ls_lossless", "MR_small"), ("MR_small_bigendian", "MR_small"),
     ("MR_small_implicit", "MR_small"), ("rtdose_rle", "rtdose"),
     ("SC_rgb_rle_16bit", "SC_rgb_rle_32bit")],
)  # fmt: skip
def test_compressed_twins_hold_the_same_values(compressed: str, plain: str) -> None:
    one, other = (
        read_scan(files.ref_of(Kind.DICOM, PACKAGED / f"{name}.dcm"))
        for name in (compressed, plain)
    )
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_an_encoding_without_decoder_is_named(tmp_path: Path) -> None:
    film = make_instance(np.zeros((6, 8), np.uint8))
    film.PixelData = pydicom.encaps.encapsulate([b"film"])
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = MPEG2MPML
    with pytest.raises(UnsupportedError, match="MPEG2"):
        read(tmp_path, [film])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_a_bad_file_is_left_out_and_leaves_a_gap(tmp_path: Path) -> None:
    files.write_files(tmp_path, make_series(volume()))
    cut_short(tmp_path / "0002.dcm")
    scan = read_scan(files.ref_of(Kind.DICOM, *sorted(tmp_path.iterdir())))
    assert scan.geometry is None and scan.flags == ("slice_lost_1", "missing_slices_1")
    np.testing.assert_array_equal(scan.pixels, np.delete(volume(), 2, axis=0))


def test_a_series_of_which_half_is_bad_is_refused_and_the_bad_files_are_counted(
    tmp_path: Path,
) -> None:
    files.write_files(tmp_path, make_series(volume(4)))
    cut_short(tmp_path / "0002.dcm")
    cut_short(tmp_path / "0003.dcm")
    ref = files.ref_of(Kind.DICOM, *sorted(tmp_path.iterdir()))
    with pytest.raises(UnreadableError, match=r"2 of the 4 files.*66 of 96 bytes"):
        read_scan(ref)


def test_a_series_with_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    ref = files.write_files(tmp_path, make_series(volume()))
    cut_short(tmp_path / "0002.dcm")
    with pytest.raises(UnreadableError, match="changed since it was listed"):
        read_scan(ref)


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    ref = files.write_files(tmp_path, make_series(volume()))
    (tmp_path / "0002.dcm").unlink()
    with pytest.raises(UnreadableError, match="storage"):
        read_scan(ref)


def test_segmentations_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="Segmentation Storage"):
        read_one(tmp_path, volume()[0], SOPClassUID=SegmentationStorage)


ORIGINALS = {
    "plain": files.encode(make_instance(volume()[0])),
    "jpeg_ls": (PACKAGED / "MR_small_jpeg_ls_lossless.dcm").read_bytes(),
    "rle": (PACKAGED / "rtdose_rle_1frame.dcm").read_bytes(),
}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=list(ORIGINALS))
@settings(deadline=None)  # a codec's first frame takes as long as all others together
@given(at=st.integers(128, 5000), damage=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_damage_never_raises_anything_but_a_scan_error(
    tmp_path_factory: pytest.TempPathFactory, original: bytes, at: int, damage: bytes, cut: bool
) -> None:
    content = bytearray(original)
    at %= len(content)
    content[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(content[:at] if cut else content)
    with contextlib.suppress(ScanError):
        assert isinstance(read_scan(files.ref_of(Kind.DICOM, path)), Scan)
