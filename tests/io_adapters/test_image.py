"""Images become one slice, upright and with the values of the file; maps become float TIFFs."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from dicom_files import ref_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from io_adapters import image as image_module
from io_adapters.display import to_display
from io_adapters.image import encode_tiff
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Scan, ScanError, UnreadableError, UnsupportedError

GREY = (np.arange(6 * 8, dtype=np.uint8) * 5).reshape(6, 8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def read(path: Path) -> Scan:
    return read_scan(ref_of(Kind.IMAGE, path))


def read_pillow(path: Path, image: Image.Image, **options: Any) -> Scan:
    image.save(path, **options)
    return read(path)


def read_tiff(path: Path, array: np.ndarray, **options: Any) -> Scan:
    tifffile.imwrite(path, array, **options)
    return read(path)


def read_png16(path: Path, array: np.ndarray) -> Scan:
    path.write_bytes(imagecodecs.png_encode(array))
    return read(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats_keep_every_byte(tmp_path: Path, suffix: str, array: np.ndarray) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    scan = read_pillow(tmp_path / f"a.{suffix}", Image.fromarray(array), **options)
    expected = np.stack([array] * 3, -1) if suffix == "webp" and array.ndim == 2 else array
    np.testing.assert_array_equal(scan.pixels[0], expected)
    assert (scan.window, scan.flags, scan.geometry) == ((0, 255), (), None)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_what_pillow_decodes(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(COLOUR).convert(mode)
    scan = read_pillow(tmp_path / "a.jpg", source)
    oracle = Image.open(tmp_path / "a.jpg").convert("L" if mode == "L" else "RGB")
    np.testing.assert_array_equal(scan.pixels[0], np.asarray(oracle))


def test_one_bit_and_palette_images_become_bytes(tmp_path: Path) -> None:
    bits = Image.fromarray(GREY > 100)
    assert set(np.unique(read_pillow(tmp_path / "a.png", bits).pixels)) == {0, 255}
    palette = Image.fromarray(COLOUR).quantize(256)
    scan = read_pillow(tmp_path / "b.png", palette)
    np.testing.assert_array_equal(scan.pixels[0], np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(("bits", "depth"), [(7, 8), (9, 10), (12, 12), (13, 14), (16, 16)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_keep_their_values_and_the_window_their_depth(
    tmp_path: Path, bits: int, depth: int, channels: int, suffix: str
) -> None:
    array = np.linspace(0, 2**bits - 1, 48).astype(np.uint16).reshape(6, 8)
    array = array if channels == 1 else np.stack([array] * 3, -1)
    path = tmp_path / f"a.{suffix}"
    scan = read_png16(path, array) if suffix == "png" else read_tiff(path, array)
    np.testing.assert_array_equal(scan.pixels[0], array)
    assert scan.window == (0, 2**depth - 1) and scan.flags == (f"{depth}bit",)


def test_sixteen_bits_do_not_saturate_on_display(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    assert len(np.unique(to_display(read_png16(tmp_path / "a.png", ramp)))) == 256


def test_float_tiffs_have_the_window_they_need(tmp_path: Path) -> None:
    unit = np.linspace(0.25, 0.75, 48, dtype=np.float32).reshape(6, 8)
    assert read_tiff(tmp_path / "a.tif", unit).window == (0, 1)
    wide = read_tiff(tmp_path / "b.tif", unit * 40)
    assert wide.window == (10, 30) and wide.flags == ("data_range",)
    unit[0, 0] = np.nan
    assert read_tiff(tmp_path / "c.tif", unit).flags == ("nonfinite_1",)


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float64, ">u2", ">f4"])
def test_other_number_types_of_tiff_are_read(tmp_path: Path, dtype: Any) -> None:
    array = (GREY.astype(np.float64) * 7).astype(dtype)
    scan = read_tiff(tmp_path / "a.tif", array)
    np.testing.assert_array_equal(scan.pixels[0], array)
    assert scan.pixels.dtype.isnative


def test_planar_and_white_is_zero_tiffs_are_read(tmp_path: Path) -> None:
    planar = np.moveaxis(COLOUR.astype(np.uint16) * 257, -1, 0)
    scan = read_tiff(tmp_path / "a.tif", planar, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(scan.pixels[0], np.moveaxis(planar, 0, -1))
    assert read_tiff(tmp_path / "b.tif", GREY.astype(np.uint16), photometric="miniswhite").invert


def test_the_first_page_is_read_and_the_others_are_counted(tmp_path: Path) -> None:
    for n, pages in enumerate((np.stack([GREY, GREY + 1]), np.stack([GREY, GREY + 1]) * 2.5)):
        scan = read_tiff(tmp_path / f"{n}.tif", pages, photometric="minisblack")
        np.testing.assert_array_equal(scan.pixels[0], pages[0])
        assert "page_1_of_2" in scan.flags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "tiff", "float"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    source = Image.fromarray(COLOUR if kind == "jpeg" else GREY)
    tagged = io.BytesIO()
    source.save(tagged, "TIFF", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tagged)))
    if kind == "float":
        tag = (274, "H", 1, orientation, True)
        scan = read_tiff(tmp_path / "a.tif", GREY / np.float32(255), extratags=[tag])
        np.testing.assert_array_equal(scan.pixels[0], upright / np.float32(255))
    else:
        scan = read_pillow(tmp_path / f"a.{kind}", source, exif=exif)
        assert scan.pixels.shape[1:3] == upright.shape[:2]
    if kind == "tiff":
        np.testing.assert_array_equal(scan.pixels[0], upright)
    assert ("exif_rotated" in scan.flags) == (orientation > 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparent_parts_lie_on_white(tmp_path: Path, dtype: type) -> None:
    full = int(np.iinfo(dtype).max)
    array = np.zeros((6, 8, 4), dtype)
    array[:3, :, 3] = full
    scan = read_png16(tmp_path / "a.png", array)
    shown = to_display(scan)[0]
    assert (shown[:3] == 0).all() and (shown[3:] == 255).all() and "alpha" in scan.flags


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.putalpha(255)
    scan = read_pillow(tmp_path / "a.png", image)
    np.testing.assert_array_equal(scan.pixels[0], COLOUR)
    assert scan.flags == ()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_file_cut_short_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableError):
        read(path)


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_module, "_MAX_PIXELS", 47)
    with pytest.raises(UnsupportedError, match="200 megapixels"):
        read_pillow(tmp_path / "a.png", Image.fromarray(GREY))
    with pytest.raises(UnsupportedError, match="200 megapixels"):
        read_tiff(tmp_path / "a.tif", GREY.astype(np.float32))
    with pytest.raises(UnsupportedError, match="200 megapixels"):
        read_png16(tmp_path / "b.png", GREY.astype(np.uint16))


def test_more_than_four_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="channels"):
        read_tiff(
            tmp_path / "a.tif",
            np.zeros((6, 8, 5), np.uint16),
            photometric="minisblack",
            planarconfig="contig",
        )


def test_a_map_is_a_tiff_that_tifffile_and_pillow_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((37, 53), np.float32)
    content = encode_tiff(values)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(content)), values)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), values)
    assert encode_tiff(values) == content


@pytest.mark.parametrize("shape", [(5, 7, 9), (3, 7, 9), (5, 7, 3), (1, 7, 4)])
def test_maps_of_a_stack_are_pages(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    with tifffile.TiffFile(io.BytesIO(encode_tiff(values))) as file:
        np.testing.assert_array_equal(np.stack([page.asarray() for page in file.pages]), values)


PNG = io.BytesIO()
Image.fromarray(COLOUR).save(PNG, "PNG")
TIFF = encode_tiff(GREY / np.float32(255))


@pytest.mark.parametrize("original", [PNG.getvalue(), TIFF], ids=["png", "tiff"])
@given(at=st.integers(0, 300), damage=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_damage_never_raises_anything_but_a_scan_error(
    tmp_path_factory: pytest.TempPathFactory, original: bytes, at: int, damage: bytes, cut: bool
) -> None:
    content = bytearray(original)
    content[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[:at] if cut else content)
    with contextlib.suppress(ScanError):
        assert isinstance(read(path), Scan)
