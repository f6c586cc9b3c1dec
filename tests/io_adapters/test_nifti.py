"""NIfTI files become slices as nibabel sees their voxels, and maps go back onto the same grid."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import ref_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from io_adapters import nifti
from io_adapters.discover import discover
from io_adapters.nifti import encode_nifti, inflate
from io_adapters.readers import read_scan
from io_adapters.scan import (
    Failure,
    Kind,
    Plane,
    Scan,
    ScanError,
    ScanRef,
    UnreadableError,
    UnsupportedError,
)

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2.0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])
NIBABEL_DATA = Path(nib.__file__).parent / "tests" / "data"


def volume(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def read(path: Path, plane: Plane = Plane.ACQUIRED) -> Scan:
    return read_scan(ref_of(Kind.NIFTI, path), plane)


def native(scan: Scan) -> np.ndarray:
    assert scan.geometry is not None
    return scan.geometry.to_native(scan.pixels)


@pytest.mark.parametrize("plane", list(Plane))
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_and_affine_are_those_of_nibabel(tmp_path: Path, plane: Plane, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", volume(3, 4, 5))
    scan = read(path, plane)
    np.testing.assert_array_equal(native(scan), np.asarray(nib.load(path).dataobj))
    assert scan.geometry is not None
    np.testing.assert_allclose(scan.geometry.affine, AFFINE)
    assert scan.pixels.dtype == np.int16


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Permuted, flipped, turned and anisotropic, with an origin anywhere."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    angles = draw(st.tuples(*[st.sampled_from([0, 0, 8, -30, 44])] * 3))
    zooms = draw(st.tuples(*[st.sampled_from([0.3, 1.0, 1.1, 2.5, 6.0])] * 3))
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ (np.eye(3)[:, order] * signs) * zooms
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


@settings(deadline=None)  # a busy machine is no failure
@given(
    affine=affines(),
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=4).map(tuple),
    dtype=st.sampled_from(["u1", "i1", "u2", ">i2", "i4", "u4", "i8", "f4", ">f4", "f8"]),
    scaling=st.sampled_from([None, (0.25, -7.0), (-2.0, 3.0)]),
    second=st.booleans(),
    plane=st.sampled_from(list(Plane)),
)
def test_every_value_is_where_nibabel_has_it(
    tmp_path_factory: pytest.TempPathFactory,
    affine: np.ndarray,
    shape: tuple[int, ...],
    dtype: str,
    scaling: tuple[float, float] | None,
    second: bool,
    plane: Plane,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.nii"
    kind = nib.Nifti2Image if second else nib.Nifti1Image
    image = kind(volume(*shape, dtype=dtype), affine, dtype=np.dtype(dtype))
    image.header.set_slope_inter(*(scaling or (1, 0)))
    path.write_bytes(image.to_bytes())
    scan, oracle = read(path, plane), nib.load(path)
    assert scan.geometry is not None
    np.testing.assert_array_equal(scan.geometry.affine, oracle.affine)
    places = np.arange(scan.pixels.size).reshape(scan.pixels.shape)
    at = scan.geometry.to_native(places)  # which pixel each native voxel became
    assert at.shape == shape and len(np.unique(at)) == at.size
    np.testing.assert_allclose(scan.pixels.ravel()[at], oracle.get_fdata(), rtol=1e-6)
    np.testing.assert_array_equal(scan.geometry.to_slices(at), places)


@pytest.mark.parametrize(
    "name",
    [
        "anatomical.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "functional.nii",
        "reoriented_anat_moved.nii",
        "test.mgz",
    ],
)
def test_real_files_hold_what_nibabel_says(name: str) -> None:
    scan, oracle = read(NIBABEL_DATA / name), nib.load(NIBABEL_DATA / name)
    np.testing.assert_allclose(native(scan), oracle.get_fdata(), rtol=1e-6)
    assert scan.geometry is not None
    np.testing.assert_allclose(scan.geometry.affine, oracle.affine)


def test_the_planes_of_a_known_brain_are_hung_like_a_radiologist_would() -> None:
    """In canonical order nibabel's axes run to the patient's right, front and top."""
    path = NIBABEL_DATA / "anatomical.nii"
    canonical = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    hung = (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)
    axial, coronal, sagittal = (read(path, plane).pixels for plane in hung)
    np.testing.assert_array_equal(axial, canonical[::-1, ::-1].transpose(2, 1, 0))
    np.testing.assert_array_equal(coronal, canonical[::-1, :, ::-1].transpose(1, 2, 0))
    np.testing.assert_array_equal(sagittal, canonical[:, ::-1, ::-1].transpose(0, 2, 1))


def test_every_volume_of_a_4d_file_is_read(tmp_path: Path) -> None:
    array = volume(3, 4, 5, 6)
    scan = read(write(tmp_path / "a.nii.gz", array))
    assert scan.flags == ("4d",) and scan.pixels.shape == (30, 4, 3)
    np.testing.assert_array_equal(native(scan), array)


def test_a_fourth_axis_of_one_volume_is_kept_for_the_map(tmp_path: Path) -> None:
    scan = read(write(tmp_path / "a.nii", volume(3, 4, 5, 1)))
    assert scan.flags == () and native(scan).shape == (3, 4, 5, 1)


def test_scaled_values_are_float32(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(3, 4, 5), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    scan = read(tmp_path / "a.nii")
    assert scan.pixels.dtype == np.float32
    np.testing.assert_allclose(native(scan), nib.load(tmp_path / "a.nii").get_fdata())


def test_big_endian_files_are_read_in_native_order(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(volume(3, 4, 5), AFFINE, header), tmp_path / "a.nii")
    scan = read(tmp_path / "a.nii")
    assert scan.pixels.dtype.isnative
    np.testing.assert_array_equal(native(scan), volume(3, 4, 5))


def test_what_is_no_number_is_counted(tmp_path: Path) -> None:
    array = volume(3, 4, 5, dtype=np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    scan = read(write(tmp_path / "a.nii", array))
    assert scan.flags == ("nonfinite_3",) and np.isfinite(scan.window).all()


def test_a_file_without_orientation_says_so_and_keeps_its_affine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", volume(3, 4, 5), None)
    scan = read(path)
    assert scan.flags == ("no_geometry",) and scan.geometry is not None
    np.testing.assert_allclose(scan.geometry.affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("sform_code", "qform_code", "expected"),
    [(1, 1, "sform"), (2, 0, "sform"), (0, 1, "qform"), (0, 0, "voxel sizes")],
)
def test_the_sform_wins_over_the_qform_and_both_over_voxel_sizes(
    tmp_path: Path, sform_code: int, qform_code: int, expected: str
) -> None:
    image = nib.Nifti1Image(volume(3, 4, 5), None)
    header = image.header
    header.set_zooms((2, 3, 4))
    header.set_qform(np.diag([2, 3, 4, 1]) + np.eye(4, k=3) * 50, code=qform_code)
    header.set_sform(AFFINE, code=sform_code)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    geometry = read(tmp_path / "a.nii").geometry
    assert geometry is not None
    corner = geometry.affine[:3, 3].tolist()
    # Of voxel sizes alone the middle of the volume is the origin, and x runs to the left.
    assert (
        corner
        == {"sform": [10, -20, 5], "qform": [50, 0, 0], "voxel sizes": [2, -4.5, -8]}[expected]
    )
    np.testing.assert_allclose(geometry.affine, nib.load(tmp_path / "a.nii").affine)


@pytest.mark.parametrize(("shift", "flags"), [(0.0, ()), (9.0, ("sform_qform_differ",))])
def test_two_orientations_that_differ_are_flagged(
    tmp_path: Path, shift: float, flags: tuple[str, ...]
) -> None:
    image = nib.Nifti1Image(volume(3, 4, 5), AFFINE)
    image.header.set_qform(AFFINE + np.eye(4, k=3) * shift, code=1)
    nib.save(image, tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").flags == flags


@pytest.mark.parametrize(
    ("unit", "flags"), [("mm", ()), ("meter", ("unit_metre",)), ("micron", ("unit_micron",))]
)
def test_other_units_than_millimetres_are_flagged(
    tmp_path: Path, unit: str, flags: tuple[str, ...]
) -> None:
    image = nib.Nifti1Image(volume(3, 4, 5), AFFINE)
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").flags == flags


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_slices_are_cut_across_an_axis_half_again_as_long_as_the_others(
    tmp_path: Path, thick: int
) -> None:
    zooms = np.ones(4)
    for length, expected in ((1.5, thick), (1.4, 2)):
        zooms[thick] = length
        geometry = read(write(tmp_path / "a.nii", volume(3, 4, 5), np.diag(zooms))).geometry
        assert geometry is not None and geometry.axes[0] == expected


def test_an_affine_that_cannot_be_inverted_is_refused(tmp_path: Path) -> None:
    flat = np.diag([1.0, 1, 0, 1])
    image = nib.Nifti1Image(volume(3, 4, 5), None)
    image.header.set_sform(flat, code=1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(UnsupportedError, match="cannot be inverted"):
        read(tmp_path / "a.nii")


def test_hounsfield_units_get_the_soft_tissue_window(tmp_path: Path) -> None:
    array = volume(3, 4, 5) * 50 - 1000
    scan = read(write(tmp_path / "a.nii", array))
    assert scan.window == (-160, 240) and scan.flags == ("ct_window",)
    fractions = array.astype(np.float32) + 0.5
    assert read(write(tmp_path / "b.nii", fractions)).flags == ()


@pytest.mark.parametrize("values", [(0, 0), (7, 7), (0, 255)])
def test_a_volume_of_one_or_two_values_has_a_window(
    tmp_path: Path, values: tuple[int, int]
) -> None:
    array = np.full((3, 4, 5), values[0], np.uint8)
    array[1] = values[1]
    low, high = read(write(tmp_path / "a.nii", array)).window
    assert low <= values[0] and max(values[1], low + 1) <= high


def test_the_bids_suffix_is_the_modality(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    assert read(write(folder / "sub-01_T1w.nii.gz", volume(3, 4, 5))).modality == "T1w"
    assert read(write(folder / "Doe_T1w.nii.gz", volume(3, 4, 5))).modality is None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_a_file_cut_short_is_unreadable(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write(tmp_path / f"a{suffix}", np.random.default_rng(0).random((9, 9, 9)))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UnreadableError, match="cut short"):
        read(path)


def test_a_corrupt_gzip_file_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", np.random.default_rng(0).random((9, 9, 9)))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum
    path.write_bytes(content)
    with pytest.raises(UnreadableError):
        read(path)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5, 2, 2)])
def test_other_numbers_of_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedError, match=f"{len(shape)} dimensions"):
        read(write(tmp_path / "a.nii", volume(*shape)))


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for n, array in enumerate((rgb, np.zeros((3, 4, 5), np.complex64))):
        with pytest.raises(UnsupportedError, match="colours or complex"):
            read(write(tmp_path / f"{n}.nii", array))


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_a_header_without_its_voxels_says_what_to_do(tmp_path: Path, kind: type) -> None:
    nib.save(kind(volume(3, 4, 5), AFFINE), tmp_path / "a.hdr")
    with pytest.raises(UnsupportedError, match=r"convert it to \.nii"):
        read(tmp_path / "a.hdr")


def test_an_analyze_header_is_called_by_its_name(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(volume(3, 4, 5), None), tmp_path / "a.hdr")
    failures = {
        Path(item.uri).name: item.message
        for item in discover([str(tmp_path)])
        if isinstance(item, Failure)
    }
    assert "an Analyze header" in failures["a.hdr"] and set(failures) == {"a.hdr", "a.img"}


@pytest.mark.parametrize("zipped", [False, True])
def test_freesurfer_volumes_are_read(tmp_path: Path, zipped: bool) -> None:
    array = volume(3, 4, 5, dtype=np.float32)
    path = tmp_path / "orig"  # content decides, not the name
    content = nib.MGHImage(array, AFFINE).to_bytes()
    path.write_bytes(gzip.compress(content) if zipped else content)
    (ref,) = discover([str(path)])
    assert isinstance(ref, ScanRef) and ref.kind is Kind.NIFTI
    scan = read_scan(ref)
    np.testing.assert_array_equal(native(scan), array)
    assert scan.geometry is not None and scan.flags == ()
    np.testing.assert_allclose(scan.geometry.affine, AFFINE, atol=1e-5)


def test_a_freesurfer_volume_without_orientation_says_so(tmp_path: Path) -> None:
    image = nib.MGHImage(volume(3, 4, 5, dtype=np.float32), AFFINE)
    content = bytearray(image.to_bytes())
    content[28:30] = bytes(2)
    (tmp_path / "a.mgh").write_bytes(content)
    assert read(tmp_path / "a.mgh").flags == ("no_geometry",)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_volume_larger_than_memory_allows_is_refused_before_it_is_loaded(
    tmp_path: Path, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_MAX_BYTES", 1500)
    path = write(tmp_path / f"a.nii{'.gz' * compressed}", volume(9, 9, 9))
    with pytest.raises(UnsupportedError, match=r"split the file|inflates"):
        read(path)
    scaled = nib.Nifti1Image(volume(9, 9, 9, dtype=np.uint8), AFFINE)
    scaled.header.set_slope_inter(0.5, 0)
    nib.save(scaled, path)  # a byte a voxel in the file, four in memory
    with pytest.raises(UnsupportedError, match="split the file"):
        read(path)


def test_a_header_that_promises_terabytes_takes_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", volume(3, 4, 5))
    content = bytearray(path.read_bytes())
    content[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="announces"):
        read(path)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "_HARMLESS_BYTES", 10_000)
    with pytest.raises(UnsupportedError, match="inflates"):
        inflate(gzip.compress(bytes(10_000_000)))


def test_a_gzip_file_of_several_members_is_one_file() -> None:
    assert inflate(gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"
    assert inflate(b"plain") == b"plain"


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
def test_a_written_map_reads_back_with_its_affine(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = volume(*shape, dtype=np.float32) / 7
    (tmp_path / "map.nii.gz").write_bytes(encode_nifti(array, AFFINE))
    image = nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), array)
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.header.get_qform(), AFFINE, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"]).strip(b"\0") == b""


def test_a_written_mask_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_bytes(encode_nifti(volume(3, 4, 5, dtype=np.uint8), AFFINE))
    image = nib.load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume(3, 4, 5))


def test_a_sheared_affine_is_written_as_sform_alone(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    (tmp_path / "map.nii.gz").write_bytes(encode_nifti(volume(3, 4, 5), sheared))
    header = nib.load(tmp_path / "map.nii.gz").header
    np.testing.assert_allclose(header.get_sform(), sheared)
    assert header["qform_code"] == 0 and header["sform_code"] > 0
    np.testing.assert_allclose(header.get_zooms(), np.linalg.norm(sheared[:3, :3], axis=0))


def test_the_same_map_is_always_the_same_bytes() -> None:
    assert encode_nifti(volume(3, 4, 5), AFFINE) == encode_nifti(volume(3, 4, 5), AFFINE)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
def test_damage_never_raises_anything_but_a_scan_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes, cut: bool
) -> None:
    content = bytearray(encode_plain(volume(3, 4, 5)))
    content[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(content[:at] if cut else content)
    with contextlib.suppress(ScanError):
        assert isinstance(read(path), Scan)


def encode_plain(array: np.ndarray) -> bytes:
    return bytes(nib.Nifti1Image(array, AFFINE).to_bytes())
