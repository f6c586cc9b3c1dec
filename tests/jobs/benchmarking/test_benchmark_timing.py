"""Times: all variants in turn, a warm-up that is not counted, seconds a slice."""

from __future__ import annotations

import time

import pytest

from jobs.benchmarking.timing import Times, Work, interleave


class Clock:
    """A clock that only moves when a variant says so."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def variant(self, name: str, *takes: float) -> object:
        left = iter(takes)

        def run() -> None:
            self.now += next(left)
            self.log += name

        return run


def test_variants_take_turns_and_the_first_of_each_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    variants = {
        "a": Work(clock.variant("a", 100, 4, 8), slices=2),
        "b": Work(clock.variant("b", 100, 2, 6), slices=4),
    }
    times = interleave(variants, rounds=2)
    assert clock.log == "ababab"
    assert times == {"a": Times((2.0, 4.0)), "b": Times((0.5, 1.5))}


def test_one_disturbed_round_does_not_move_the_median() -> None:
    times = Times((1.0, 50.0, 1.2))
    assert times.median == 1.2
    assert times.to_dict() == {
        "median": 1.2,
        "fastest": 1.0,
        "slowest": 50.0,
        "rounds": [1.0, 50.0, 1.2],
    }
