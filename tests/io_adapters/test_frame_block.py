"""A block holds the frames of a series once, and gives them back in any order."""

from __future__ import annotations

import numpy as np
import pytest

from io_adapters.frame_block import FrameBlock

LIMIT = 2**20
FRAMES = np.arange(5 * 2 * 3, dtype=np.int16).reshape(5, 1, 2, 3)
"""Five files of one frame."""


def test_frames_in_order_are_joined_without_a_copy() -> None:
    block = FrameBlock(5, LIMIT)
    kept = [block.keep(frames) for frames in FRAMES]
    joined = block.join([frames[0] for frames in kept])
    np.testing.assert_array_equal(joined, FRAMES[:, 0])
    assert all(np.shares_memory(joined, frames) for frames in kept)
    assert not np.shares_memory(joined, FRAMES)


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [0, 2, 1], [1, 1], [3]])
def test_frames_come_back_in_any_order(order: list[int]) -> None:
    block = FrameBlock(5, LIMIT)
    kept = [block.keep(frames)[0] for frames in FRAMES]
    np.testing.assert_array_equal(block.join([kept[n] for n in order]), FRAMES[order, 0])


def test_a_part_that_lies_together_is_not_copied() -> None:
    block = FrameBlock(5, LIMIT)
    kept = [block.keep(frames)[0] for frames in FRAMES]
    joined = block.join(kept[1:4])
    np.testing.assert_array_equal(joined, FRAMES[1:4, 0])
    assert np.shares_memory(joined, kept[2])


def test_files_of_several_frames_lie_one_behind_the_other() -> None:
    block = FrameBlock(2, LIMIT)
    kept = [block.keep(frames) for frames in (FRAMES[:2, 0], FRAMES[2:4, 0])]
    joined = block.join([frame for frames in kept for frame in frames])
    np.testing.assert_array_equal(joined, FRAMES[:4, 0])
    assert np.shares_memory(joined, kept[1])


@pytest.mark.parametrize(
    "stranger", [FRAMES[2].astype(np.float32), FRAMES[2, :, :1], FRAMES[2:4, 0], FRAMES[2:2, 0]]
)
def test_frames_unlike_the_first_stay_what_they_are(stranger: np.ndarray) -> None:
    block = FrameBlock(2, LIMIT)
    first = block.keep(FRAMES[0])
    assert block.keep(stranger) is stranger
    if stranger.shape == first.shape:
        np.testing.assert_array_equal(block.join([first[0], stranger[0]]), FRAMES[[0, 2], 0])


def test_a_single_file_is_not_copied() -> None:
    block = FrameBlock(1, LIMIT)
    assert block.keep(FRAMES[:, 0]) is not None
    assert np.shares_memory(block.keep(FRAMES[:, 0]), FRAMES)


def test_no_more_than_the_limit_is_taken() -> None:
    """A first file of many frames, and thousands of files, would be terabytes."""
    block = FrameBlock(10**12, 2 * FRAMES[0].nbytes)
    kept = [block.keep(frames) for frames in FRAMES]
    assert sum(np.shares_memory(frames, FRAMES) for frames in kept) == 3
    np.testing.assert_array_equal(block.join([frames[0] for frames in kept]), FRAMES[:, 0])
