"""Progress that a person can follow on a terminal and in the log of a submitted job."""

from __future__ import annotations

import sys
import time

EVERY_S = 5.0
"""Seconds between lines; a terminal's line is redrawn with every scan."""


class Progress:
    """Counts scans as they end and tells rate, time left and failures."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed, self.slices = total, 0, 0, 0
        self.started = time.monotonic()
        self._shown = self.started - EVERY_S
        self._live = sys.stdout.isatty()

    def add(self, *, slices: int, failed: bool) -> None:
        """Count one scan that ended."""
        self.done += 1
        self.failed += failed
        self.slices += slices
        now = time.monotonic()
        if self._live or self.done == self.total or now - self._shown >= EVERY_S:
            self._shown = now
            end = "\n" if not self._live or self.done == self.total else ""
            print(f"\r{self.line():<78}" if self._live else self.line(), end=end, flush=True)

    @property
    def slices_per_second(self) -> float | None:
        """Slices scored per second so far; None before the first."""
        seconds = time.monotonic() - self.started
        return self.slices / seconds if self.slices else None

    def line(self) -> str:
        """Return the state in one line."""
        seconds = time.monotonic() - self.started
        left = seconds / self.done * (self.total - self.done) if self.done else 0.0
        rate = f"{self.slices_per_second:.1f} slices/s" if self.slices_per_second else "starting"
        return (
            f"scored {self.done}/{self.total} scans · {rate} · "
            f"{_clock(left)} left · {self.failed} failed"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
