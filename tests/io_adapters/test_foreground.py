"""The foreground: one box for all slices, and maps back exactly where they came from."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.foreground import Box, find_foreground
from io_adapters.planes import cut
from io_adapters.scan import Geometry, Plane


def display_with(*, noise: int = 0) -> np.ndarray:
    """Return slices (8, 64, 96, 1), something bright in slices 2-5, rows 10-41, columns 20-83."""
    display = np.random.default_rng(0).integers(0, noise + 1, (8, 64, 96, 1)).astype(np.uint8)
    display[2:6, 10:42, 20:84] = 200
    return display


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    sides = []
    for length in shape:
        first = draw(st.integers(0, length - 1))
        sides.append((first, draw(st.integers(first + 1, length))))
    return Box(slices=sides[0], rows=sides[1], columns=sides[2], shape=shape)


def test_the_box_holds_what_shows_something_and_a_margin() -> None:
    box = find_foreground(display_with())
    assert box == Box(slices=(2, 6), rows=(9, 43), columns=(18, 86), shape=(8, 64, 96))


def test_noise_of_the_air_does_not_count() -> None:
    assert find_foreground(display_with(noise=20)) == find_foreground(display_with())
    specked = display_with()
    specked[7, 63, 0] = 255
    assert find_foreground(specked) == find_foreground(display_with())


def test_colours_count_by_their_brightest_channel() -> None:
    colours = np.zeros((8, 64, 96, 3), np.uint8)
    colours[..., 1] = display_with()[..., 0]
    assert find_foreground(colours) == find_foreground(display_with())


@pytest.mark.parametrize("value", [0, 255])
def test_all_or_nothing_needs_no_box(value: int) -> None:
    assert find_foreground(np.full((3, 8, 9, 1), value, np.uint8)) is None


def test_all_volumes_of_a_stack_have_one_box() -> None:
    first, second = display_with(), display_with()
    first[2], second[5] = 0, 0  # each shows less than the two together
    assert find_foreground(np.concatenate([first, second]), 2) == find_foreground(display_with())


@given(boxes(), st.integers(1, 3))
def test_what_is_cropped_is_put_back_exactly(box: Box, volumes: int) -> None:
    count = volumes * box.shape[0]
    whole = np.arange(count * box.shape[1] * box.shape[2], dtype=np.float32)
    whole = whole.reshape(count, *box.shape[1:])
    restored = box.restore(box.crop(whole), count)
    inside = np.isfinite(restored)
    np.testing.assert_array_equal(restored[inside], whole[inside])
    assert inside.sum() == box.crop(whole).size
    np.testing.assert_array_equal(box.crop(restored), box.crop(whole))
    assert box.kept(count) == [n for n in range(count) if inside[n].any()]


@given(boxes(), st.sampled_from([Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL]), st.randoms())
def test_cropped_voxels_stay_where_they_are(box: Box, plane: Plane, random: object) -> None:
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    affine[:3, :3] += 4 * np.eye(3)[rng.permutation(3)]
    axes, flips = cut(affine, (2, 2, 2), plane)
    i, j, k = (box.shape[axes.index(axis)] for axis in range(3))
    whole = Geometry(affine=affine, shape=(i, j, k), axes=axes, flips=flips)
    expected = [box.crop(whole.to_slices(places)) for places in _places(whole)]
    part = box.geometry(whole)
    found = [part.to_slices(places) for places in _places(part)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_box_outside_of_its_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie within"):
        Box(slices=(0, 3), rows=(0, 1), columns=(0, 1), shape=(2, 1, 1))


def test_a_box_survives_json() -> None:
    box = Box(slices=(0, 1), rows=(1, 3), columns=(0, 2), shape=(2, 4, 2))
    assert Box.from_dict(box.to_dict()) == box


def _places(geometry: Geometry) -> list[np.ndarray]:
    indices = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return list(np.moveaxis(nib.affines.apply_affine(geometry.affine, indices), -1, 0))
