"""Augmentations: a picture and its mask change together, within the published bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsad.training.augment import (
    Augmentation,
    Movement,
    apply_movement,
    draw_mosaic,
    draw_movement,
    jitter_colours,
    mosaic,
    move,
)

STILL = Movement(degrees=0.0, shift=(0, 0), mirrored=False, upended=False)
SPOT = torch.zeros(4, 32, 32)
SPOT[:, 10, 12] = 1


class Dice:
    """A generator that always answers the same."""

    def __init__(self, chance: float, value: float) -> None:
        self.chance, self.value = chance, value

    def random(self) -> float:
        return self.chance

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.value <= high
        return self.value


def test_a_picture_and_its_mask_move_together_and_the_mask_stays_one() -> None:
    mask = torch.zeros(32, 32)
    mask[5:12, 20:24] = 1
    changed = 0
    for seed in range(40):
        image, moved = move(
            mask.expand(3, -1, -1), mask, np.random.default_rng(seed), Augmentation()
        )
        assert image.shape == (3, 32, 32)
        assert all(torch.equal(plane, moved) for plane in image)
        assert set(moved.unique().tolist()) <= {0.0, 1.0}
        changed += not torch.equal(moved, mask)
    assert changed > 30


def test_a_movement_that_does_nothing_leaves_the_picture_alone() -> None:
    planes = torch.randn(4, 32, 32)
    assert torch.equal(apply_movement(planes, STILL), planes)


@pytest.mark.parametrize(
    ("movement", "row", "column"),
    [
        (STILL._replace(shift=(3, -2)), 8, 15),
        (STILL._replace(mirrored=True), 10, 31 - 12),
        (STILL._replace(upended=True), 31 - 10, 12),
        (STILL._replace(degrees=90.0), 31 - 12, 10),
        (STILL._replace(degrees=90.0, shift=(1, 0), upended=True), 12, 11),
    ],
)
def test_where_a_spot_goes(movement: Movement, row: int, column: int) -> None:
    moved = apply_movement(SPOT, movement)
    assert moved.nonzero()[:, 1:].tolist() == [[row, column]] * 4


def test_what_comes_in_from_outside_is_zero() -> None:
    moved = apply_movement(torch.full((4, 32, 32), 7.0), STILL._replace(shift=(4, 0)))
    assert (moved[:, :, :4] == 0).all()
    assert (moved[:, :, 4:] == 7).all()


def test_draws_keep_within_the_published_bounds_and_happen_half_of_the_time() -> None:
    drawn = [draw_movement(np.random.default_rng([7, n]), 100, Augmentation()) for n in range(2000)]
    degrees = np.array([movement.degrees for movement in drawn])
    shifts = np.array([movement.shift for movement in drawn])
    assert 28 < np.abs(degrees).max() <= 30
    assert 14 <= np.abs(shifts).max() <= 15
    for happened in (
        degrees != 0,
        shifts.any(axis=1),
        [movement.mirrored for movement in drawn],
        [movement.upended for movement in drawn],
    ):
        assert 0.45 < np.mean(happened) < 0.55


def test_a_picture_s_change_follows_from_its_generator_alone() -> None:
    planes = torch.randn(3, 32, 32), torch.ones(32, 32)
    first, again, other = (
        move(*planes, np.random.default_rng(key), Augmentation()) for key in ([1, 5], [1, 5], 2)
    )
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(5))
def test_the_number_of_draws_does_not_depend_on_their_outcome(seed: int) -> None:
    used, counted = np.random.default_rng(seed), np.random.default_rng(seed)
    draw_movement(used, 64, Augmentation())
    counted.random(7)
    jitter_colours(np.zeros((2, 2, 3), np.uint8), used, jitter=0.5)
    counted.random(6)
    assert used.random() == counted.random()


def test_colours_are_left_alone_unless_chosen() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(jitter_colours(image, Dice(0.7, 0.5), jitter=0.5), image)
    assert not np.array_equal(jitter_colours(image, Dice(0.69, 0.5), jitter=0.5), image)


def test_brightness_contrast_and_saturation_follow_each_other() -> None:
    image = np.array([[[200, 100, 0], [0, 100, 200]]], np.uint8)
    half = jitter_colours(image, Dice(0.0, 0.5), jitter=0.5)
    dark = image.astype(float) / 2
    grey = dark @ [0.299, 0.587, 0.114]
    flat = (dark + grey.mean()) / 2
    expected = (flat + (flat @ [0.299, 0.587, 0.114])[..., None]) / 2
    np.testing.assert_allclose(half, expected, atol=1.5)


def test_brightness_varies_by_half_either_way_and_mostly() -> None:
    grey = np.full((2, 2, 3), 100, np.uint8)  # contrast and saturation cannot change it
    shades = np.array(
        [jitter_colours(grey, np.random.default_rng(n), jitter=0.5)[0, 0, 0] for n in range(800)]
    )
    assert 50 <= shades.min() < 55
    assert 145 < shades.max() <= 150
    assert 0.25 < np.mean(shades == 100) < 0.37


def test_a_reach_of_nothing_leaves_only_mirror_images() -> None:
    still = Augmentation(turn=0, shift=0, jitter=0)
    drawn = [draw_movement(np.random.default_rng([8, n]), 64, still) for n in range(200)]
    assert {(m.degrees, m.shift) for m in drawn} == {(0.0, (0, 0))}
    assert {(m.mirrored, m.upended) for m in drawn} == {(a, b) for a in (0, 1) for b in (0, 1)}
    image = np.full((3, 3, 3), 77, np.uint8)
    assert np.array_equal(jitter_colours(image, np.random.default_rng(0), jitter=0), image)


@pytest.mark.parametrize("seed", range(5))
def test_without_mirror_images_a_picture_turns_and_shifts_as_before(seed: int) -> None:
    mirrored, straight = (
        draw_movement(np.random.default_rng(seed), 64, Augmentation(mirror=mirror))
        for mirror in (True, False)
    )
    assert straight == mirrored._replace(mirrored=False, upended=False)


def test_nothing_at_all_can_be_asked_for() -> None:
    none = Augmentation(turn=0, shift=0, jitter=0, mirror=False)
    image, mask = torch.randn(3, 8, 8), torch.ones(8, 8)
    for seed in range(20):
        moved = move(image, mask, np.random.default_rng(seed), none)
        assert torch.equal(moved[0], image)
        assert torch.equal(moved[1], mask)


def test_a_mosaic_shows_its_parts_row_by_row_with_their_masks() -> None:
    images = [np.full((2, 3, 3), shade, np.uint8) for shade in (10, 20, 30, 40)]
    masks = [np.zeros((2, 3), bool) for _ in images]
    masks[1][0, 2] = masks[2][1, 0] = True
    image, mask = mosaic(images, masks)
    assert (image.dtype, mask.dtype) == (np.uint8, bool)
    assert image[..., 0].tolist() == [[10] * 3 + [20] * 3] * 2 + [[30] * 3 + [40] * 3] * 2
    assert np.argwhere(mask).tolist() == [[0, 5], [3, 0]]


def test_parts_of_equal_size_keep_every_pixel() -> None:
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    truths = rng.random((4, 5, 7)) < 0.5
    image, mask = mosaic(list(parts), list(truths))
    np.testing.assert_array_equal(image[:5, 7:], parts[1])
    np.testing.assert_array_equal(image[5:, :7], parts[2])
    np.testing.assert_array_equal(mask[5:, 7:], truths[3])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=4, max_size=4))
def test_the_first_part_decides_the_size_and_the_others_fill_theirs(
    sizes: list[tuple[int, int]],
) -> None:
    shades = (50, 100, 150, 200)
    images = [
        np.full((*size, 3), shade, np.uint8) for size, shade in zip(sizes, shades, strict=True)
    ]
    image, mask = mosaic(images, [np.full(size, size[0] % 2 == 0) for size in sizes])
    height, width = sizes[0]
    assert image.shape == (2 * height, 2 * width, 3)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        part = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (image[part] == shades[number]).all()
        assert (mask[part] == (sizes[number][0] % 2 == 0)).all()


def test_a_mosaic_of_three_is_refused() -> None:
    picture, mask = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), bool)
    with pytest.raises(ValueError, match="takes 4 pictures, got 3"):
        mosaic([picture] * 3, [mask] * 3)


def test_mosaics_are_as_frequent_as_asked_and_show_four_different_pictures() -> None:
    drawn = [
        draw_mosaic(range(10, 16), np.random.default_rng([9, n]), chance=0.2) for n in range(2000)
    ]
    made = [parts for parts in drawn if parts]
    assert 0.17 < len(made) / len(drawn) < 0.23
    assert all(len(set(parts)) == 4 for parts in made)
    assert set().union(*made) == set(range(10, 16))


@pytest.mark.parametrize("candidates", [[5], [5, 6], [5, 6, 7]])
def test_few_pictures_come_more_than_once(candidates: list[int]) -> None:
    for seed in range(10):
        parts = draw_mosaic(candidates, np.random.default_rng(seed), chance=1)
        assert len(parts) == 4
        assert set(parts) <= set(candidates)


def test_no_mosaic_without_a_chance() -> None:
    assert not any(draw_mosaic([1], np.random.default_rng(n), chance=0) for n in range(50))


@pytest.mark.parametrize("name", ["turn", "shift", "jitter", "mosaic"])
@pytest.mark.parametrize("value", [-1, 200, float("nan"), True])
def test_an_impossible_reach_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: value})


def test_mirror_images_are_a_matter_of_yes_or_no() -> None:
    with pytest.raises(ValueError, match=r"mirror must be true or false, is 0\.5"):
        Augmentation(mirror=0.5)
