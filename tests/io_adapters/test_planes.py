"""Planes: every volume is shown the way radiologists hang it, however its voxels are stored."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.planes import cut, recut, regrid, three_planes
from io_adapters.scan import Geometry, Plane, Scan, UnsupportedError

STORED_AS = [
    "".join(code)
    for order in itertools.permutations(["RL", "AP", "SI"])
    for code in itertools.product(*order)
]
"""All 48 ways to store a volume along the axes of the body ("LAS", …)."""

SHOWN = {
    Plane.AXIAL: ("S", "P", "L"),
    Plane.CORONAL: ("A", "I", "L"),
    Plane.SAGITTAL: ("R", "I", "P"),
}
"""Where slices, rows and columns run to: the nose up or left, the patient's right on the left."""

TOWARDS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def affine_of(code: str) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for voxel_axis, letter in enumerate(code):
        world_axis, sign = TOWARDS[letter]
        affine[world_axis, voxel_axis] = sign
    return affine


def geometry_of(affine: np.ndarray, shape: tuple[int, int, int], plane: Plane) -> Geometry:
    axes, flips = cut(affine, shape, plane)
    return Geometry(affine=affine, shape=shape, axes=axes, flips=flips)


@pytest.mark.parametrize("plane", list(SHOWN))
def test_slices_rows_and_columns_run_as_radiologists_hang_them(plane: Plane) -> None:
    for code in STORED_AS:
        affine, shape = affine_of(code), (3, 4, 5)
        coordinates = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        world = nib.affines.apply_affine(affine, coordinates)
        grid = geometry_of(affine, shape, plane)
        for array_axis, letter in enumerate(SHOWN[plane]):
            world_axis, sign = TOWARDS[letter]
            steps = np.diff(grid.to_slices(world[..., world_axis]), axis=array_axis)
            assert (steps == sign).all(), (code, letter)


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_the_acquired_plane_is_across_the_thick_axis(thick: int) -> None:
    affine = np.eye(4)
    affine[thick, thick] = 1.5
    assert cut(affine, (3, 4, 5), Plane.ACQUIRED)[0][0] == thick


def test_isotropic_voxels_are_shown_axial() -> None:
    for code in STORED_AS:
        affine = affine_of(code)
        assert cut(affine, (3, 4, 5), Plane.ACQUIRED) == cut(affine, (3, 4, 5), Plane.AXIAL)


def test_a_single_slice_is_never_cut_into_lines() -> None:
    assert cut(np.eye(4), (3, 1, 5), Plane.AXIAL)[0][0] == 1


def test_an_oblique_volume_is_cut_along_its_nearest_voxel_planes() -> None:
    angle = np.radians(20)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert cut(turned, (3, 4, 5), Plane.CORONAL) == cut(np.eye(4), (3, 4, 5), Plane.CORONAL)


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_a_grid_without_volume_is_refused(broken: float) -> None:
    affine = np.eye(4)
    affine[1, 1] = broken
    with pytest.raises(UnsupportedError, match="degenerate"):
        cut(affine, (3, 4, 5), Plane.AXIAL)


def test_recutting_keeps_every_voxel_in_its_place() -> None:
    native = np.arange(60).reshape(3, 4, 5)
    grid = geometry_of(np.eye(4), (3, 4, 5), Plane.AXIAL)
    scan = recut(Scan(pixels=grid.to_slices(native), window=(0, 59), geometry=grid), Plane.SAGITTAL)
    assert scan.geometry is not None and scan.pixels.shape == (3, 5, 4)
    np.testing.assert_array_equal(scan.geometry.to_native(scan.pixels), native)


def test_recutting_colours_moves_the_channels_together() -> None:
    native = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    grid = geometry_of(np.eye(4), (3, 4, 5), Plane.AXIAL)
    grey = Scan(pixels=grid.to_slices(native), window=(0, 255), geometry=grid)
    colour = Scan(pixels=np.stack([grey.pixels] * 3, -1), window=(0, 255), geometry=grid)
    expected = recut(grey, Plane.CORONAL).pixels
    np.testing.assert_array_equal(recut(colour, Plane.CORONAL).pixels[..., 1], expected)


def test_what_has_no_geometry_stays_as_acquired() -> None:
    scan = Scan(pixels=np.zeros((3, 4, 5)), window=(0, 1))
    assert recut(scan, Plane.CORONAL) is scan


@given(
    st.sampled_from(STORED_AS),
    st.tuples(*[st.integers(2, 5)] * 3),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([0, 1, 3]),
)
def test_maps_of_all_planes_come_back_to_the_native_grid_exactly(
    code: str, shape: tuple[int, int, int], volumes: int | None, channels: int
) -> None:
    affine = affine_of(code)
    axes, flips = cut(affine, shape, Plane.ACQUIRED)
    read = Geometry(affine=affine, shape=shape, axes=axes, flips=flips, volumes=volumes)
    native = np.arange(np.prod(shape) * (volumes or 1)).reshape(
        *shape, *([volumes] * bool(volumes))
    )
    slices = read.to_slices(native)
    shown = np.stack([slices] * channels, axis=-1) if channels else slices
    cuts = three_planes(read)
    assert cuts is not None and set(cuts) == set(SHOWN)
    assert len({geometry.axes[0] for geometry in cuts.values()}) == 3
    for geometry in cuts.values():
        moved = regrid(shown, read, geometry)
        for back in [moved[..., n] for n in range(channels)] or [moved]:
            np.testing.assert_array_equal(geometry.to_native(back), native)
        np.testing.assert_array_equal(regrid(moved, geometry, read), shown)


def test_the_plane_that_was_read_stays_as_it_is_among_the_three() -> None:
    stored = Geometry(affine=np.eye(4), shape=(3, 4, 5), axes=(2, 1, 0), flips=(False, True, False))
    cuts = three_planes(stored)
    assert cuts is not None and cuts[Plane.AXIAL] is stored


@pytest.mark.parametrize(("step", "shape"), [(3.1, (3, 4, 5)), (1.0, (3, 4, 1))])
def test_thick_or_single_slices_have_one_plane(step: float, shape: tuple[int, int, int]) -> None:
    geometry = geometry_of(np.diag([1, 1, step, 1]), shape, Plane.ACQUIRED)
    assert three_planes(geometry) is None


def test_all_planes_are_read_as_acquired() -> None:
    affine = np.diag([1, 2, 1, 1.0])
    assert cut(affine, (3, 4, 5), Plane.ALL) == cut(affine, (3, 4, 5), Plane.ACQUIRED)
