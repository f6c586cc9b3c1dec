"""The contract: slices go back to the grid they came from, and what is impossible is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.scan import FileRef, Geometry, Kind, Scan, ScanRef

AXES = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product([False, True], repeat=3))
lengths = st.integers(1, 4)


def geometry(
    shape: tuple[int, int, int] = (2, 3, 4),
    axes: tuple[int, int, int] = (2, 1, 0),
    flips: tuple[bool, bool, bool] = (False, True, False),
    volumes: int | None = None,
) -> Geometry:
    return Geometry(
        affine=np.diag([0.5, 0.75, 2.0, 1.0]), shape=shape, axes=axes, flips=flips, volumes=volumes
    )


@given(
    shape=st.tuples(lengths, lengths, lengths),
    axes=st.sampled_from(AXES),
    flips=st.sampled_from(FLIPS),
    volumes=st.none() | lengths,
)
def test_slices_go_back_to_the_native_grid(
    shape: tuple[int, int, int],
    axes: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
    volumes: int | None,
) -> None:
    grid = geometry(shape, axes, flips, volumes)
    native = np.arange(np.prod(shape) * (volumes or 1)).reshape(
        *shape, *([volumes] * bool(volumes))
    )
    slices = grid.to_slices(native)
    assert slices.shape == ((volumes or 1) * shape[axes[0]], shape[axes[1]], shape[axes[2]])
    np.testing.assert_array_equal(grid.to_native(slices), native)


def test_rows_bottom_to_top_become_rows_top_to_bottom() -> None:
    native = np.arange(24).reshape(2, 3, 4)
    slices = geometry().to_slices(native)
    assert slices[1, 0, 1] == native[1, 2, 1]


def test_the_volumes_of_a_4d_file_follow_each_other() -> None:
    native = np.zeros((2, 3, 4, 5))
    native[..., 3] = 1
    slices = geometry(volumes=5).to_slices(native)
    assert [bool(plane.any()) for plane in slices] == [k // 4 == 3 for k in range(20)]


def test_spacing_is_that_of_slices_rows_and_columns() -> None:
    assert geometry().spacing() == (2.0, 0.75, 0.5)


def test_geometry_survives_json() -> None:
    grid = geometry(volumes=3)
    again = Geometry.from_dict(grid.to_dict())
    np.testing.assert_array_equal(again.affine, grid.affine)
    assert (again.shape, again.axes, again.flips, again.volumes) == (
        (2, 3, 4),
        (2, 1, 0),
        (False, True, False),
        3,
    )


def test_a_ref_survives_json() -> None:
    ref = ScanRef(
        kind=Kind.DICOM,
        uri="s3://a/b",
        files=(FileRef(uri="s3://a/b/1", size=3, version="x"),),
        scan_id="i",
        study_id="s",
        label="ö",
        class_name="brain",
    )
    assert ScanRef.from_json(ref.to_json()) == ref


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 2), (1, 4, 4, 3, 1)])
def test_pixels_that_are_no_slices_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pixels must be"):
        Scan(pixels=np.zeros(shape), window=(0, 1))


@pytest.mark.parametrize("window", [(1, 1), (2, 1), (0, float("nan"))])
def test_a_window_without_width_is_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low < high"):
        Scan(pixels=np.zeros((1, 2, 2)), window=window)


def test_axes_that_are_no_permutation_are_refused() -> None:
    with pytest.raises(ValueError, match="permutation"):
        geometry(axes=(0, 0, 1))
