"""Progress that a person can follow on a terminal and in the log of a submitted job."""

from __future__ import annotations

import math
import sys
import time

EVERY_S = 5.0
"""Seconds between lines; a terminal's line is redrawn with every scan."""


class Progress:
    """Counts scans as they end and tells rate, time left and failures.

    Rate and time left are measured from the first scan that ends: what comes before is the start
    of worker processes, which says nothing about the rest.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed, self.slices = total, 0, 0, 0
        self._first: float | None = None
        self._first_slices = 0
        self._shown = 0.0
        self._live = sys.stdout.isatty()

    def add(self, *, slices: int, failed: bool) -> None:
        """Count one scan that ended."""
        now = time.monotonic()
        self.done += 1
        self.failed += failed
        self.slices += slices
        if self._first is None:
            self._first, self._first_slices = now, slices
        if self._live or self.done == self.total or now - self._shown >= EVERY_S:
            self._shown = now
            end = "\n" if not self._live or self.done == self.total else ""
            print(f"\r{self.line():<78}" if self._live else self.line(), end=end, flush=True)

    @property
    def slices_per_second(self) -> float | None:
        """Slices scored per second since the first scan ended; None before a second one has."""
        seconds = time.monotonic() - (self._first or math.inf)
        slices = self.slices - self._first_slices
        return slices / seconds if slices and seconds > 0 else None

    def line(self) -> str:
        """Return the state in one line."""
        parts = [f"scored {self.done}/{self.total} scans"]
        if rate := self.slices_per_second:
            parts.append(f"{rate:.1f} slices/s")
        if self._first is not None and 1 < self.done < self.total:
            each = (time.monotonic() - self._first) / (self.done - 1)
            parts.append(f"{clock(each * (self.total - self.done))} left")
        return " · ".join([*parts, f"{self.failed} failed"])


def clock(seconds: float) -> str:
    """Return a duration as people write it: "1:05", "2:03:04"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
