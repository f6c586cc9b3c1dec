"""Mosaics are cut into the slices they were laid out from."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import make_instance
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from io_adapters.dicom_mosaic import count_tiles, place_tiles, take_apart
from io_adapters.scan import UnreadableError, UnsupportedError


@given(count=st.integers(2, 30), height=st.integers(1, 4), width=st.integers(1, 4))
def test_tiles_come_back_in_the_order_in_which_they_were_laid(
    count: int, height: int, width: int
) -> None:
    side = next(n for n in range(1, 7) if n * n >= count)
    slices = np.arange(count * height * width).reshape(count, height, width)
    mosaic = np.zeros((side * height, side * width), int)
    for n, tile in enumerate(slices):
        top, left = n // side * height, n % side * width
        mosaic[top : top + height, left : left + width] = tile
    np.testing.assert_array_equal(take_apart(mosaic, count), slices)


def test_a_picture_that_the_tiles_do_not_fill_is_unreadable() -> None:
    with pytest.raises(UnreadableError, match="6x8 pixels are no mosaic of 5 slices"):
        take_apart(np.zeros((6, 8), int), 5)


def mosaic(**attributes: object) -> Dataset:
    instance = make_instance(np.zeros((8, 8), np.int16), Modality="MR", **attributes)
    block = instance.private_block(0x19, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 4)
    return instance


def test_a_mosaic_is_known_by_its_number_of_slices_alone() -> None:
    assert count_tiles(mosaic()) == 4
    assert count_tiles(make_instance(np.zeros((8, 8), np.int16), Modality="MR")) == 1


def test_tiles_whose_direction_is_not_told_lie_nowhere() -> None:
    assert place_tiles(mosaic(SpacingBetweenSlices="2"), 4) == [None] * 4


def test_another_vendors_grid_is_refused() -> None:
    instance = make_instance(np.zeros((8, 8), np.int16), Modality="MR")
    instance.private_block(0x65, "Image Private Header", create=True).add_new(0x50, "DS", "36")
    with pytest.raises(UnsupportedError, match="grid of slices"):
        count_tiles(instance)
