"""What a benchmark is made of: pictures, differences, ratios, the machine's description."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from jobs.benchmarking.against_plain import Comparison
from jobs.benchmarking.differences import find_difference
from jobs.benchmarking.machine import describe_machine
from jobs.benchmarking.pictures import draw_pictures
from jobs.benchmarking.timing import Times


def test_pictures_are_the_same_every_time_and_of_several_classes() -> None:
    first, again = draw_pictures(5, 28), draw_pictures(5, 28)
    assert len({picture.class_name for picture in first}) == 4
    assert first[0].class_name == first[4].class_name
    for one, two in zip(first, again, strict=True):
        assert one.pixels.shape == (28, 28, 3)
        assert one.pixels.dtype == np.uint8
        assert np.array_equal(one.pixels, two.pixels)
    for one, two in combinations(first, 2):
        assert not np.array_equal(one.pixels, two.pixels)


def test_a_difference_is_the_largest_one_and_knows_what_it_is_to_be_compared_with() -> None:
    found = find_difference("map", [1.0, 2.5, 9.0], [1.0, 3.0, 8.75], allowed=0.5)
    assert (found.largest, found.reach) == (0.5, 7.75)
    assert not found.is_too_large


@pytest.mark.parametrize("wrong", [1.1, float("nan")])
def test_a_difference_above_what_is_allowed_is_too_large(wrong: float) -> None:
    assert find_difference("map", [wrong], [1.0], allowed=0.05).is_too_large
    assert not find_difference("score", [wrong], [1.0], allowed=None).is_too_large


def test_ratios_are_those_of_the_medians() -> None:
    comparison = Comparison(
        {
            "plain_fp32": Times((8.0, 4.0, 3.0)),
            "detector_fp32": Times((2.0, 2.0, 9.0)),
            "detector_bf16": Times((0.5, 0.5, 0.5)),
        },
        [find_difference("map", [0.0], [1.0], allowed=0.5)],
    )
    numbers = comparison.to_dict()
    assert numbers["plain_fp32_slices_per_s"] == 0.25
    assert numbers["detector_bf16_slices_per_s"] == 2.0
    assert numbers["ratio_fp32_over_plain"] == 2.0
    assert numbers["ratio_bf16_over_plain"] == 8.0
    assert comparison.wrong == ["map"]
    header, plain, *_ = comparison.as_text().splitlines()
    assert plain.split() == ["plain_fp32", "4", "3", "8", "0.25", "1.00"]
    assert header.split()[-2:] == ["×", "plain"]


def test_the_machine_is_described_by_what_decides_a_speed() -> None:
    machine = describe_machine()
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu"]
    assert machine["versions"]["torch"] == torch.__version__.split("+")[0]
