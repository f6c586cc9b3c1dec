"""Times of several ways to do the same thing, on a machine that others may be using too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds a slice, of each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: a disturbed round does not move it."""
        return statistics.median(self.rounds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "median": self.median,
            "fastest": min(self.rounds),
            "slowest": max(self.rounds),
            "rounds": list(self.rounds),
        }


class Work(NamedTuple):
    """What is timed."""

    run: Callable[[], object]
    """Does one round's work."""
    slices: int
    """That it consists of."""


def interleave(variants: Mapping[str, Work], *, rounds: int) -> dict[str, Times]:
    """Warm each variant up, then time all in turn, round after round.

    A load that comes and goes then meets all of them alike.

    Args:
        variants: by name.
        rounds: how many, at least 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, (run, slices) in variants.items():
            started = time.perf_counter()
            run()
            took = (time.perf_counter() - started) / slices
            stage = f"round {number}/{rounds}" if number else "warm-up"
            print(f"{stage}: {name} {took:.3g} s a slice", flush=True)
            if number:
                seconds[name].append(took)
    return {name: Times(tuple(each)) for name, each in seconds.items()}
