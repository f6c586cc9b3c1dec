"""What a benchmark is made of: pictures, differences, ratios, the machine's description."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from jobs.benchmarking import machine
from jobs.benchmarking.batch_stages import BatchStages
from jobs.benchmarking.comparison import Comparison
from jobs.benchmarking.differences import find_difference
from jobs.benchmarking.flops import Flops
from jobs.benchmarking.machine import describe_machine
from jobs.benchmarking.pictures import draw_pictures
from jobs.benchmarking.result import cost_as_text, cost_of
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


COMPARISON = Comparison(
    times={
        "plain_fp32": Times((8.0, 4.0, 3.0)),
        "detector_fp32": Times((2.0, 2.0, 9.0)),
        "detector_bf16": Times((0.5, 0.5, 0.5)),
    },
    differences=[find_difference("map", [0.0], [1.0], allowed=0.5)],
    sizes={
        "detector_fp32": {1: Times((3.0,)), 4: Times((2.0,))},
        "detector_bf16": {1: Times((0.5,)), 4: Times((0.6,))},
    },
    flops=Flops(all=1000, trunk=800),
    peaks={"fp32": 1000.0, "bf16": 4000.0},
    stages=BatchStages(slices=1, seconds={"trunk": 0.4, "heads": 0.1}, device_bytes=10**6),
)


def test_ratios_are_those_of_the_medians() -> None:
    numbers = COMPARISON.to_dict()
    assert numbers["plain_fp32_slices_per_s"] == 0.25
    assert numbers["detector_bf16_slices_per_s"] == 2.0
    assert numbers["ratio_fp32_over_plain"] == 2.0
    assert numbers["ratio_bf16_over_plain"] == 8.0
    assert COMPARISON.problem == "too large a difference: map"
    header, plain, *_ = COMPARISON.as_text().splitlines()
    assert plain.split() == ["plain_fp32", "4", "3", "8", "0.25", "1.00", "25%"]
    assert header.split()[-4:] == ["×", "plain", "of", "peak"]


def test_fractions_are_of_the_peak_in_the_variant_s_precision() -> None:
    numbers = COMPARISON.to_dict()
    assert numbers["fraction_of_matmul_peak_by_variant"] == {
        "plain_fp32": 0.25, "detector_fp32": 0.5, "detector_bf16": 0.5
    }  # fmt: skip
    assert numbers["fraction_of_matmul_peak"] == 0.5  # of the fastest
    assert numbers["trunk_fraction_of_matmul_peak"] == pytest.approx(0.5)  # 800 / 0.4 / 4000
    assert numbers["matmul_peak_bf16_tflops"] == 4000e-12


def test_a_trunk_that_was_not_seen_has_no_fraction() -> None:
    stages = replace(COMPARISON.stages, seconds={"trunk": 0.0, "heads": 0.5})
    unseen = replace(COMPARISON, stages=stages)
    assert unseen.to_dict()["trunk_fraction_of_matmul_peak"] is None
    assert "it is among the heads" in unseen.as_text()


def test_one_core_s_trunk_has_no_share_of_all_cores_peak() -> None:
    on_cpu = replace(COMPARISON, stages=replace(COMPARISON.stages, device_bytes=None))
    assert on_cpu.to_dict()["trunk_fraction_of_matmul_peak"] is None
    assert "the trunk" not in on_cpu.as_text().replace("in the trunk", "")


def test_several_batch_sizes_are_a_table() -> None:
    rows = [line.split() for line in COMPARISON.as_text().splitlines()]
    assert ["batch", "size", "1", "4"] in rows
    assert ["detector_bf16", "2", "1.67", "slices/s"] in rows


def test_a_thousand_slices_cost_time_and_money() -> None:
    cost = cost_of({"pipeline": 2.0}, price_per_hour=7.2)
    assert cost == {
        "machine_seconds_per_1000_slices": {"pipeline": 500.0},
        "cost_per_1000_slices": {"pipeline": pytest.approx(1.0)},
    }
    assert cost_as_text({"pipeline": 2.0}, 7.2).endswith("pipeline 500 s for 1")


def test_without_a_price_nothing_costs_money() -> None:
    assert cost_of({"pipeline": 2.0}, None)["cost_per_1000_slices"] == {"pipeline": None}
    assert cost_as_text({"pipeline": 2.0}, None).endswith("pipeline 500 s")


def test_a_package_that_is_missing_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    assert describe_machine()["versions"]["no-such-package"] is None


def test_the_machine_is_described_by_what_decides_a_speed() -> None:
    found = describe_machine()
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
