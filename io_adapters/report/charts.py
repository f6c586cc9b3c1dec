"""The small drawings of the report: numbers in, SVG path data out.

Every chart of one sort shares one scale, so that two cards can be compared by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

WIDTH, HEIGHT = 320, 40
"""The view box of a chart; the page scales it."""
MAX_BARS = 96
BINS = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The range of values that a chart spans."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Scale:
        """Return the range of the numbers among `values`; (0, 1) where there are none."""
        known = [value for value in values if is_number(value)]
        return cls(low=min(known), high=max(known)) if known else cls(low=0.0, high=1.0)

    def place(self, value: float) -> float:
        """Return where a value lies, 0…1; the middle where all values are the same."""
        if self.high <= self.low:
            return 0.5
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def is_number(value: float | None) -> TypeGuard[float]:
    """Say whether a score is there: tables may hold None or NaN for one that is not."""
    return value is not None and not math.isnan(value)


@dataclass(frozen=True, slots=True)
class SliceBars:
    """The scores along a volume, a bar per slice or per few slices."""

    path: str
    """One upward stroke per bar."""
    worst: str
    """The stroke of the worst slice; empty where it is not known."""
    stroke: float
    """The width of a stroke, in units of the view box."""


def slice_bars(scores: Sequence[float | None], worst: int | None, scale: Scale) -> SliceBars:
    """Draw slice scores (S,); slices without a score leave a gap.

    More than `MAX_BARS` slices share bars, of which each shows its highest score: an average
    would hide the single bad slice that the chart is for.
    """
    per_bar = max(1, math.ceil(len(scores) / MAX_BARS))
    step = WIDTH / max(1, math.ceil(len(scores) / per_bar))
    strokes = []
    for first in range(0, len(scores), per_bar):
        known = [score for score in scores[first : first + per_bar] if is_number(score)]
        if not known:
            strokes.append("")
            continue
        x = (first // per_bar + 0.5) * step
        height = 2 + scale.place(max(known)) * (HEIGHT - 2)  # 2: the lowest score is not a gap
        strokes.append(f"M{x:.1f} {HEIGHT}v-{height:.1f}")
    marked = strokes[worst // per_bar] if worst is not None and worst < len(scores) else ""
    return SliceBars("".join(strokes), marked, round(step * 0.72, 2))


def histogram_path(scores: Iterable[float | None], scale: Scale) -> str:
    """Draw how all scores are distributed, as one filled outline.

    Heights grow with the root of the count: beside ten thousand ordinary studies, the bin of a
    single one is still visible.
    """
    counts = [0] * BINS
    for score in scores:
        if is_number(score):
            counts[min(BINS - 1, int(scale.place(score) * BINS))] += 1
    tallest = math.sqrt(max(counts)) or 1.0
    step = WIDTH / BINS
    tops = [HEIGHT - (HEIGHT - 4) * math.sqrt(count) / tallest for count in counts]
    outline = "".join(f"V{top:.1f}h{step:.2f}" for top in tops)
    return f"M0 {HEIGHT}{outline}V{HEIGHT}Z"
