"""The square that a detector takes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zsad.preprocess import squash, squash_mask

RNG = np.random.default_rng(3)


def test_colour_equals_pillow_s_bicubic_on_uint8() -> None:
    image = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(squash(image, 16), np.asarray(expected).transpose(2, 0, 1))


def test_grey_is_three_equal_channels() -> None:
    image = RNG.integers(0, 256, (13, 21, 1), dtype=np.uint8)
    square = squash(image, 8)
    assert square.shape == (3, 8, 8)
    colour = squash(np.repeat(image, 3, axis=-1), 8)
    np.testing.assert_array_equal(square, colour)


def test_a_mask_s_pixels_are_taken_from_the_nearest_and_never_mixed() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, 4:] = True
    squashed = squash_mask(mask, 2)
    assert squashed.dtype == bool
    assert squashed.tolist() == [[False, True], [False, False]]
    assert squash_mask(mask, 16).sum() == 16 * 16 / 4
