"""A training run in lines that a person can follow, on a terminal and in a job's log."""

from __future__ import annotations

import sys
from typing import Any

from jobs.progress import clock


class Progress:
    """Prints what the workers tell."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()

    def show(self, event: dict[str, Any]) -> None:
        """Print one event; on a terminal, steps redraw their line."""
        if phase := event.get("phase"):
            print(phase, flush=True)
        elif progress := event.get("progress"):
            line = step_line(progress)
            print(f"\r{line:<100}" if self._live else line, end="" if self._live else "\n")
            sys.stdout.flush()
        elif record := event.get("epoch"):
            print(("\n" if self._live else "") + epoch_line(record), flush=True)


def step_line(progress: dict[str, Any]) -> str:
    """Return where an epoch stands."""
    return " · ".join(
        [
            f"{progress['stage']} epoch {progress['epoch']}/{progress['epochs']}",
            f"step {progress['step']}/{progress['steps']}",
            _losses(progress["losses"]),
            f"{progress['images_per_second']:.1f} images/s",
            f"{clock(progress['seconds_left'])} left",
        ]
    )


def epoch_line(record: dict[str, Any]) -> str:
    """Return what an epoch came to."""
    parts = [f"{record['stage']} epoch {record['epoch']} done", _losses(record["losses"])]
    if held_out := record.get("held_out"):
        parts.append(
            f"held out: pixel AUROC {held_out['pixel_auroc']:.4f}, "
            f"image AUROC {held_out['image_auroc']:.4f}"
        )
    return " · ".join([*parts, f"{record['seconds']:.0f} s"])


def _losses(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
