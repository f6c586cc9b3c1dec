"""Score constants and the pooling of slices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsad.scores import ScoreRange, pool_slices

SCORES = st.lists(st.floats(-10, 10) | st.none(), min_size=1, max_size=60)


def test_one_slice_is_its_own_pool() -> None:
    assert pool_slices([0.25]) == 0.25


def test_sixteen_slices_pool_the_two_highest() -> None:
    assert pool_slices([float(n) for n in range(16)]) == 14.5


def test_unscored_slices_do_not_count() -> None:
    assert pool_slices([None, 1.0, None]) == 1.0
    assert pool_slices([None]) is None


@given(SCORES)
def test_pool_is_bounded_by_the_slices_and_does_not_depend_on_their_order(
    scores: list[float | None],
) -> None:
    pooled = pool_slices(scores)
    known = [score for score in scores if score is not None]
    if not known:
        assert pooled is None
        return
    assert pooled is not None
    assert min(known) - 1e-9 <= pooled <= max(known) + 1e-9
    assert pool_slices(scores[::-1]) == pooled


def test_range_maps_its_ends_to_zero_and_one() -> None:
    scale = ScoreRange(map=(2.0, 6.0), image=(0.0, 0.5))
    assert scale.scale_map(torch.tensor([2.0, 6.0, 8.0])).tolist() == [0.0, 1.0, 1.5]
    assert scale.scale_image(torch.tensor([0.0, 0.5])).tolist() == [0.0, 1.0]


def test_empty_range_is_refused_with_its_values() -> None:
    with pytest.raises(ValueError, match=r"map range.*\(1.0, 1.0\)"):
        ScoreRange(map=(1.0, 1.0), image=(0.0, 1.0))
