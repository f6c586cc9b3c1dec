"""What the time of a batch is spent on: copies, the vision tower's blocks, all the rest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from jobs.benchmarking.trunk_hooks import watch_trunk
from jobs.devices import Device, OnItsWay
from jobs.model import Model
from zsad.detectors import ClassText, Detector, PatchScores

Result = TypeVar("Result")
STAGES = ("resize", "copy_in", "trunk", "heads", "copy_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchStages:
    """Seconds of each stage of a batch, one after the other; medians over some batches."""

    slices: int
    """Of the batch."""
    seconds: dict[str, float]
    """By `STAGES`; "heads" is what the detector does beside the trunk. A trunk of 0 was not seen,
    because nothing called its modules, as in a captured graph."""
    device_bytes: int | None
    """Peak of the device's memory; None on a CPU."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "stages_batch_size": self.slices,
            "stages_ms": {name: 1000 * each for name, each in self.seconds.items()},
            "device_peak_mb": None if self.device_bytes is None else self.device_bytes / 1e6,
        }

    def as_text(self) -> str:
        """Return a table for a person."""
        total = sum(self.seconds.values())
        lines = [f"a batch of {self.slices}, stage by stage:", f"{'':16}{'ms':>9}{'share':>9}"]
        for name, each in self.seconds.items():
            lines.append(f"{name:16}{1000 * each:9.4g}{each / total:9.1%}")
        if self.device_bytes is not None:
            lines.append(f"peak of the device's memory: {self.device_bytes / 1e6:.0f} MB")
        return "\n".join(lines)


class _Clock:
    """Moments in the work of a device: a GPU's own, since it works later than it is told to."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def now(self) -> Any:
        """Return this moment."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, earlier: Any, later: Any) -> float:
        """Return the seconds between two moments that have passed."""
        if not self.on_gpu:
            return float(later - earlier)
        torch.cuda.synchronize()
        return float(earlier.elapsed_time(later)) / 1000


class _Timed:
    """A device that notes when copies begin and end. Fulfils `jobs.devices.Device`."""

    def __init__(self, device: Device, clock: _Clock) -> None:
        self.of, self.clock, self.device = device, clock, device.device
        self.batches_at_once = device.batches_at_once
        self.resizing: float = 0.0
        self.moments: dict[str, tuple[Any, Any]] = {}

    def take(self, detector: Detector) -> None:
        """Do the same."""
        self.of.take(detector)

    def buffer(self, slices: int, side: int) -> Tensor:
        """Begin to resize."""
        self.resizing = time.perf_counter()
        return self.of.buffer(slices, side)

    def copy_in(self, pixels: Tensor) -> Tensor:
        """End to resize; copy."""
        self.resizing = time.perf_counter() - self.resizing
        return self._time("copy_in", lambda: self.of.copy_in(pixels))

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """Do the same."""
        return self.of.run(detector, pixels, texts)

    def copy_out(self, scores: PatchScores) -> OnItsWay:
        """Copy."""
        return self._time("copy_out", lambda: self.of.copy_out(scores))

    def free_memory(self) -> None:
        """Do the same."""
        self.of.free_memory()

    def _time(self, name: str, work: Callable[[], Result]) -> Result:
        began = self.clock.now()
        result = work()
        self.moments[name] = (began, self.clock.now())
        return result


def measure_stages(
    model: Model, images: Sequence[np.ndarray], class_names: Sequence[str], *, rounds: int
) -> BatchStages:
    """Time the stages of a batch, one batch after the other, so that nothing overlaps.

    On a CPU it is a batch of one slice, and so of one core: each slice has one to itself.

    Args:
        model: warmed up.
        images: the batch, uint8 (H, W, C).
        class_names: theirs.
        rounds: how often the batch is scored.
    """
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        images, class_names = images[:1], class_names[:1]
    each = [_time_batch(model, images, class_names) for _ in range(rounds)]
    return BatchStages(
        slices=len(images),
        seconds={name: statistics.median(times[name] for times in each) for name in STAGES},
        device_bytes=torch.cuda.max_memory_allocated() if model.device.type == "cuda" else None,
    )


def _time_batch(
    model: Model, images: Sequence[np.ndarray], class_names: Sequence[str]
) -> dict[str, float]:
    clock = _Clock(model.device)
    device, timed = model.on, _Timed(model.on, clock)
    model.on = timed
    try:
        with watch_trunk(model.detector, clock.now) as passes:
            model.score(images, class_names)
    finally:
        model.on = device
    copied_in, copied_out = timed.moments["copy_in"], timed.moments["copy_out"]
    trunk = sum(clock.between(*each) for each in passes)
    return {
        "resize": timed.resizing,
        "copy_in": clock.between(*copied_in),
        "trunk": trunk,
        "heads": clock.between(copied_in[1], copied_out[0]) - trunk,
        "copy_out": clock.between(*copied_out),
    }
