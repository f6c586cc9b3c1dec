"""Augmentations: a picture and its mask move together, within the published bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zsad.training.augment import (
    Augmentation,
    Movement,
    apply_movement,
    draw_movement,
    jitter_colours,
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


@pytest.mark.parametrize("name", ["turn", "shift", "jitter"])
def test_an_impossible_reach_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: -1})
