"""How many slices go through a model at once."""

from __future__ import annotations

import logging

import pytest
import torch

from jobs.batches import MOST_GPU_SLICES, BatchLimit, NoMemoryError, fitting, is_lack_of_memory

GB = 10**9


@pytest.mark.parametrize(
    ("free", "one", "two", "slices"),
    [
        (10 * GB, 1 * GB, 2 * GB, 8),  # a fifth is left alone
        (9 * GB, 1 * GB, 2 * GB, 4),  # 7 would fit
        (10 * GB, 3 * GB, 4 * GB, 4),  # 2 GB are needed once, whatever the number
        (1 * GB, 2 * GB, 4 * GB, 1),  # it is tried before it is given up
        (80 * GB, 0, 0, MOST_GPU_SLICES),
        (80 * GB, 1000, 1500, MOST_GPU_SLICES),
    ],
)
def test_a_batch_fits_into_what_is_free(free: int, one: int, two: int, slices: int) -> None:
    assert fitting(free, one, two) == slices


def test_a_limit_is_half_of_what_was_too_much_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = BatchLimit(64)
    with caplog.at_level(logging.WARNING):
        limit.lower(tried=24)
    assert limit.most == 12
    assert caplog.messages == ["too little memory for 24 slices at once: from now on 12"]


def test_less_than_a_slice_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NoMemoryError, match="let fewer workers share a device"):
        BatchLimit(1).lower(tried=1)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_lack_of_memory_has_several_names(error: Exception, is_one: bool) -> None:
    assert is_lack_of_memory(error) is is_one
