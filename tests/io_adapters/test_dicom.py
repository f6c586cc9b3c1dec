"""DICOM series become volumes as dcm2niix and SimpleITK see them, or a ScanError says why not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dcm2niix
import dicom_files as files
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    ROOT,
    SAGITTAL,
    make_instance,
    make_series,
    read,
    read_one,
    volume,
)
from pydicom import Dataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Plane, Scan, UnsupportedError

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}
each_orientation = pytest.mark.parametrize(
    "orientation", ORIENTATIONS.values(), ids=list(ORIENTATIONS)
)


def dcm2niix_image(folder: Path, out: Path) -> nib.Nifti1Image:
    """Convert a series; `-x i` leaves 3-D acquisitions on the grid they were acquired on."""
    out.mkdir()
    options = ["-x", "i", "-b", "n", "-z", "n", "-f", "x"]
    command = [dcm2niix.bin, *options, "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    return nib.load(path)


def assert_equals_dcm2niix(scan: Scan, folder: Path, out: Path) -> None:
    oracle = dcm2niix_image(folder, out)
    assert scan.geometry is not None
    native = scan.geometry.to_native(scan.pixels)
    assert scan.geometry.shape == native.shape == oracle.shape
    np.testing.assert_allclose(scan.geometry.affine, oracle.affine, atol=1e-3)
    np.testing.assert_allclose(native, np.asarray(oracle.dataobj), rtol=1e-5)


# Geometry


@each_orientation
@pytest.mark.parametrize("step", [2.0, -2.0])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_grid_affine_and_voxels_are_those_of_dcm2niix(
    tmp_path: Path, orientation: tuple[float, ...], step: float, slices: int
) -> None:
    folder = tmp_path / "series"
    scan = read(folder, make_series(volume(slices), orientation=orientation, step=step))
    assert scan.flags == ()
    assert_equals_dcm2niix(scan, folder, tmp_path / "out")


@each_orientation
def test_every_voxel_is_where_simpleitk_finds_it(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    folder = tmp_path / "series"
    scan = read(folder, make_series(volume(), orientation=orientation))
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    oracle = SimpleITK.ReadImage(names)
    assert scan.geometry is not None
    native = scan.geometry.to_native(scan.pixels)
    for index in np.ndindex(native.shape):
        lps = scan.geometry.affine @ (*index, 1) * (-1, -1, 1, 1)
        where = oracle.TransformPhysicalPointToIndex(lps[:3])
        assert oracle[where] == native[index]


@each_orientation
@pytest.mark.parametrize("plane", [Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL])
def test_a_recut_series_keeps_its_native_grid(
    tmp_path: Path, orientation: tuple[float, ...], plane: Plane
) -> None:
    folder = tmp_path / "series"
    scan = read(folder, make_series(volume(), orientation=orientation), plane)
    assert_equals_dcm2niix(scan, folder, tmp_path / "out")


def test_acquired_slices_have_rows_and_columns_as_in_the_file(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, make_series(volume())).pixels, volume())


def test_positions_decide_the_order_and_not_names_or_numbers(tmp_path: Path) -> None:
    shuffled = [make_series(volume())[k] for k in (3, 0, 4, 1, 2)]
    for number, instance in enumerate(shuffled):
        instance.InstanceNumber = number
    np.testing.assert_array_equal(read(tmp_path, shuffled).pixels, volume())


def test_a_tilted_gantry_becomes_a_sheared_affine_and_a_flag(tmp_path: Path) -> None:
    step = np.array([0.0, 2.0 * np.tan(np.radians(15)), 2.0])
    scan = read(tmp_path, make_series(volume(), step=step))
    assert scan.flags == ("tilt",) and scan.geometry is not None
    np.testing.assert_allclose(scan.geometry.affine[:3, 2], step * (-1, -1, 1), atol=1e-5)


def test_missing_slices_leave_a_stack_without_geometry(tmp_path: Path) -> None:
    series = make_series(volume(9))
    scan = read(tmp_path, series[:3] + series[5:], Plane.CORONAL)
    assert scan.geometry is None and scan.flags == ("missing_slices_2",)
    np.testing.assert_array_equal(scan.pixels, np.delete(volume(9), [3, 4], axis=0))


def test_uneven_spacing_leaves_a_stack_without_geometry(tmp_path: Path) -> None:
    series = make_series(volume())
    series[4].ImagePositionPatient[2] += 1.2
    scan = read(tmp_path, series[::-1])
    assert scan.geometry is None and scan.flags == ("uneven_spacing_2.00..3.20mm",)
    np.testing.assert_array_equal(scan.pixels, volume())


def test_a_slice_moved_sideways_leaves_a_stack_without_geometry(tmp_path: Path) -> None:
    series = make_series(volume())
    series[2].ImagePositionPatient[0] += 1
    scan = read(tmp_path, series)
    assert scan.geometry is None and scan.flags == ("off_grid_1.00mm",)


def test_rounded_positions_are_regular(tmp_path: Path) -> None:
    series = make_series(volume(9), step=0.625)
    for instance in series:
        instance.ImagePositionPatient = [round(x, 2) for x in instance.ImagePositionPatient]
    assert read(tmp_path, series).flags == ()


def several_volumes(count: int, **options: object) -> list[Dataset]:
    instances = [one for t in range(count) for one in make_series(volume() + 7 * t, **options)]
    for n, instance in enumerate(instances):
        instance.SOPInstanceUID, instance.InstanceNumber = f"{ROOT}3.{n + 1}", n + 1
        instance.AcquisitionNumber = n // 5 + 1
    return instances


@each_orientation
def test_several_volumes_in_a_series_are_a_4d_volume_as_dcm2niix_makes_it(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    folder = tmp_path / "series"
    scan = read(folder, several_volumes(3, orientation=orientation)[::-1])
    assert scan.flags == ("4d",) and scan.geometry is not None and scan.geometry.volumes == 3
    expected = np.concatenate([volume() + 7 * t for t in range(3)])
    np.testing.assert_array_equal(scan.pixels, expected)
    native = scan.geometry.to_native(scan.pixels)
    oracle = dcm2niix_image(folder, tmp_path / "out")
    np.testing.assert_allclose(scan.geometry.affine, oracle.affine, atol=1e-3)
    np.testing.assert_array_equal(native, np.asarray(oracle.dataobj))


def test_of_an_incomplete_volume_nothing_is_kept(tmp_path: Path) -> None:
    scan = read(tmp_path, several_volumes(3)[:-1])
    assert scan.flags == ("4d", "slices_of_incomplete_volumes_dropped_4")
    np.testing.assert_array_equal(scan.pixels, np.concatenate([volume(), volume() + 7]))


def test_an_incomplete_volume_that_nothing_tells_from_others_is_refused(tmp_path: Path) -> None:
    series = several_volumes(2)[:-1]
    for instance in series:
        instance.AcquisitionNumber = 1
    with pytest.raises(UnsupportedError, match="9 frames lie at 5 places"):
        read(tmp_path, series)


def test_volumes_beside_each_other_have_no_common_geometry(tmp_path: Path) -> None:
    series = several_volumes(2)
    for instance in series[5:]:
        instance.ImagePositionPatient[0] += 1
    scan = read(tmp_path, series)
    assert scan.geometry is None and scan.flags == ("4d", "off_grid_1.00mm")


def test_slices_of_two_orientations_have_no_common_geometry(tmp_path: Path) -> None:
    mixed = make_series(volume(2)) + make_series(volume(2) + 9, orientation=SAGITTAL)
    for n, instance in enumerate(mixed):
        instance.SOPInstanceUID = f"{ROOT}3.{n + 1}"
    scan = read(tmp_path, mixed)
    assert scan.geometry is None and scan.flags == ("orientations_2",)
    assert {plane.tobytes() for plane in scan.pixels[2:]} == {p.tobytes() for p in volume(2) + 9}


def test_slices_of_two_pixel_spacings_have_no_common_geometry(tmp_path: Path) -> None:
    series = make_series(volume())
    series[3].PixelSpacing = [0.5, 0.76]
    scan = read(tmp_path, series)
    assert scan.geometry is None and scan.flags == ("pixel_spacing_varies",)


def test_other_sizes_in_a_series_are_refused(tmp_path: Path) -> None:
    mixed = make_series(volume(3))
    mixed[1] = make_series(volume(3, 4, 4))[1]
    with pytest.raises(UnsupportedError, match="different sizes: 4x4, 6x8"):
        read(tmp_path, mixed)


def test_a_copy_of_a_slice_is_dropped_and_an_impostor_is_refused(tmp_path: Path) -> None:
    series = make_series(volume())
    scan = read(tmp_path / "copy", [*series, series[2]])
    assert scan.flags == ("copies_dropped_1",)
    np.testing.assert_array_equal(scan.pixels, volume())
    impostor = make_series(volume() + 1)[2]
    with pytest.raises(UnsupportedError, match="same SOP instance UID"):
        read(tmp_path / "impostor", [*series, impostor])


def test_a_slice_sent_twice_under_two_names_is_dropped(tmp_path: Path) -> None:
    series = make_series(volume())
    twice = make_series(volume())[2]
    twice.SOPInstanceUID, twice.InstanceNumber = ROOT + "3.99", 99
    scan = read(tmp_path, [twice, *series])
    assert scan.flags == ("duplicates_1",) and scan.geometry is not None
    np.testing.assert_array_equal(scan.pixels, volume())


def test_without_positions_instance_numbers_decide_and_a_flag_says_so(tmp_path: Path) -> None:
    series = make_series(volume(), ImagePositionPatient=None)[::-1]
    scan = read(tmp_path, series)
    assert scan.geometry is None and scan.flags == ("no_geometry",)
    np.testing.assert_array_equal(scan.pixels, volume())


def test_positions_in_some_files_only_are_refused(tmp_path: Path) -> None:
    series = make_series(volume())
    del series[1].ImagePositionPatient
    with pytest.raises(UnsupportedError, match="1 frames do not say where"):
        read(tmp_path, series)


def test_a_single_image_without_position_is_a_plain_image(tmp_path: Path) -> None:
    scan = read_one(tmp_path, volume()[0], ImagePositionPatient=None)
    assert scan.geometry is None and scan.flags == () and scan.pixels.shape == (1, 6, 8)


@pytest.mark.parametrize("spacing", [[0.5], [0.5, 0.5, 0.5], [0, 0.5], ["", ""]])
def test_a_spacing_that_makes_no_sense_is_no_geometry(tmp_path: Path, spacing: list) -> None:
    assert read_one(tmp_path, volume()[0], PixelSpacing=spacing).geometry is None


def test_a_mosaic_without_private_attributes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="mosaic does not tell how many"):
        read_one(tmp_path, volume()[0], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])


# Sources


def source_names(scan: Scan) -> list[tuple[str, int]]:
    return [(Path(source.file.uri).name, source.frame) for source in scan.sources]


def test_sources_name_the_file_and_frame_of_every_slice(tmp_path: Path) -> None:
    series = make_series(volume(4))
    scan = read(tmp_path, [series[k] for k in (2, 0, 3, 1, 1)])
    assert source_names(scan) == [(f"{n:04}.dcm", 1) for n in (1, 3, 0, 2)]


def test_sources_leave_out_what_reading_leaves_out(tmp_path: Path) -> None:
    files.write_files(tmp_path, make_series(volume(4)))
    broken = tmp_path / "0002.dcm"
    broken.write_bytes(broken.read_bytes()[:-30])
    ref = files.ref_of(Kind.DICOM, *sorted(tmp_path.iterdir()))
    assert source_names(read_scan(ref)) == [(f"{n:04}.dcm", 1) for n in (0, 1, 3)]


def test_sources_count_the_frames_of_a_file_from_one(tmp_path: Path) -> None:
    scan = read(tmp_path, [enhanced(volume(3), [2, 0, 1])])
    assert source_names(scan) == [("0000.dcm", n) for n in (2, 3, 1)]


# Several frames in one file


def enhanced(slices: np.ndarray, order: list[int]) -> Dataset:
    """Return an enhanced MR object, its frames in any order, each with a rescale of its own."""
    instance = make_instance(slices[order][0], SOPClassUID=EnhancedMRImageStorage, Modality="MR")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(instance, keyword)
    instance.NumberOfFrames = len(order)
    instance.PixelData = slices[order].tobytes()
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], "2"
    plane.ImageOrientationPatient = list(CORONAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    instance.SharedFunctionalGroupsSequence = [shared]
    instance.PerFrameFunctionalGroupsSequence = []
    for k in order:
        frame, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [1.0, 2.0 + 2 * k, 3.0]
        values.RescaleSlope, values.RescaleIntercept = str(k + 1), "0.5"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [values]
        instance.PerFrameFunctionalGroupsSequence.append(frame)
    return instance


def test_frames_of_an_enhanced_object_are_placed_and_rescaled_one_by_one(tmp_path: Path) -> None:
    slices = volume(3)
    scan = read(tmp_path, [enhanced(slices, [2, 0, 1])])
    expected = slices * np.array([1, 2, 3])[:, None, None] + 0.5
    np.testing.assert_allclose(scan.pixels, expected)
    assert scan.geometry is not None and scan.geometry.spacing() == (2.0, 0.5, 0.75)
    assert scan.modality == "MR" and scan.flags == ()


def test_frames_of_an_enhanced_object_at_one_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="4 frames lie at 3 places"):
        read(tmp_path, [enhanced(volume(3), [0, 1, 2, 0])])


def test_a_film_has_no_geometry_whatever_its_position_says(tmp_path: Path) -> None:
    frames = np.arange(3 * 6 * 8, dtype=np.uint8).reshape(3, 6, 8)
    film = make_instance(frames[0], SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US")
    film.NumberOfFrames, film.PixelData = 3, frames.tobytes()
    scan = read(tmp_path, [film])
    np.testing.assert_array_equal(scan.pixels, frames)
    assert scan.geometry is None and scan.window == (0, 255)
    assert scan.flags == ("no_geometry", "burned_in_text_possible")


def test_a_dose_grid_lies_at_its_offsets_and_is_scaled() -> None:
    path = PACKAGED / "rtdose.dcm"
    scan, dataset = read_scan(files.ref_of(Kind.DICOM, path)), pydicom.dcmread(path)
    assert scan.geometry is not None and scan.geometry.shape == (10, 10, 15)
    np.testing.assert_allclose(scan.geometry.spacing()[0], dataset.GridFrameOffsetVector[1])
    np.testing.assert_allclose(
        scan.pixels, dataset.pixel_array * float(dataset.DoseGridScaling), rtol=1e-6
    )
