"""Where a model computes: how slices get there, go through a detector, and what it says comes back.

A GPU works through what is queued for it while the CPU goes on: slices are copied in from pinned
memory on a stream of their own, under the computation of the batch before, and results are waited
for when somebody wants to read them.

On a CPU each slice has a core to itself, from its first pixel to its scores. Cores then never wait
for each other, as those of a team do after every operation: for very long, where other work takes
one of them away. And a slice is computed the same way in every batch, on any number of cores, to
the last bit: products of other shapes round otherwise, and AdaCLIP's fusion may then choose
other patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import Protocol

import torch
from torch import Tensor

from zsad.detectors import ClassText, Detector, PatchScores
from zsad.packing import can_pack


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """Scores that a device computes."""

    scores: PatchScores
    arrival: torch.cuda.Event | None = None

    def wait(self) -> PatchScores:
        """Return the scores, on the CPU, as soon as they are there."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.scores


class Device(Protocol):
    """What a model needs to know of the place where it computes."""

    device: torch.device
    batches_at_once: int
    """How many batches may be on it together."""

    def take(self, detector: Detector) -> None:
        """Make a detector ready to score here, for good."""

    def buffer(self, slices: int, side: int) -> Tensor:
        """Return memory for a batch, uint8 (slices, 3, side, side), which `copy_in` takes."""

    def copy_in(self, pixels: Tensor) -> Tensor:
        """Return pixels of a buffer on the device, for what is queued from now on."""

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """Put slices that are on the device through a detector, now or as soon as it can."""

    def copy_out(self, scores: PatchScores) -> OnItsWay:
        """Queue the way back of scores."""

    def free_memory(self) -> None:
        """Give back what no batch uses."""


class Cpu:
    """Some cores of a CPU. Fulfils `Device`."""

    device = torch.device("cpu")
    batches_at_once = 2  # so that no core waits for the last slice of a batch

    def __init__(self, *, threads: int, bf16: bool) -> None:
        """Start a thread for each core."""
        self.bf16 = bf16
        self._threads = ThreadPoolExecutor(threads, "slice", initializer=_compute_alone)
        others, started = torch.get_num_threads(), Barrier(threads)
        list(self._threads.map(lambda _: started.wait(), range(threads)))
        torch.set_num_threads(others)

    def take(self, detector: Detector) -> None:
        """See `Device`."""
        if can_pack():
            detector.pack(torch.bfloat16 if self.bf16 else torch.float32)

    def buffer(self, slices: int, side: int) -> Tensor:
        """See `Device`."""
        return torch.empty((slices, 3, side, side), dtype=torch.uint8)

    def copy_in(self, pixels: Tensor) -> Tensor:
        """Return the same pixels."""
        return pixels

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """See `Device`."""
        alone = self._threads.map(partial(self._score_one, detector), pixels.split(1), texts)
        return PatchScores(*map(torch.cat, zip(*alone, strict=True)))

    @torch.inference_mode()
    def _score_one(self, detector: Detector, pixels: Tensor, text: ClassText) -> PatchScores:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16 and not can_pack()):
            return detector(pixels, [text])

    def copy_out(self, scores: PatchScores) -> OnItsWay:
        """Return the same scores."""
        return OnItsWay(scores)

    def free_memory(self) -> None:
        """Do nothing: what nobody uses is free."""


def _compute_alone() -> None:
    """Have PyTorch use this thread alone for what this thread asks for.

    It keeps one number for all threads, and each thread looks at it once, at its first use.
    """
    torch.set_num_threads(1)
    torch.get_num_threads()


class Gpu:
    """The GPU that Ray gave this process. Fulfils `Device`."""

    device = torch.device("cuda")
    batches_at_once = 1

    def __init__(self, *, bf16: bool) -> None:
        """Make fp32 mean fp32: PyTorch rounds what a convolution sees to 10 bits otherwise."""
        self.bf16 = bf16
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._copies = torch.cuda.Stream()

    def take(self, detector: Detector) -> None:
        """See `Device`."""
        detector.to(self.device)  # type: ignore[attr-defined]

    def buffer(self, slices: int, side: int) -> Tensor:
        """See `Device`; only pinned memory can be copied while the CPU goes on."""
        return torch.empty((slices, 3, side, side), dtype=torch.uint8, pin_memory=True)

    def copy_in(self, pixels: Tensor) -> Tensor:
        """See `Device`."""
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(self._copies):
            there = pixels.to(self.device, non_blocking=True)
        computing.wait_stream(self._copies)
        there.record_stream(computing)  # or its memory would be reused while it is read
        return there

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """See `Device`."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16):
            return detector(pixels, texts)

    def copy_out(self, scores: PatchScores) -> OnItsWay:
        """See `Device`."""
        here = PatchScores(*(values.to("cpu", non_blocking=True) for values in scores))
        arrival = torch.cuda.Event(blocking=True)  # without it a core would spin, waiting
        arrival.record()
        return OnItsWay(here, arrival)

    def free_memory(self) -> None:
        """See `Device`."""
        torch.cuda.empty_cache()

    def room(self) -> int:
        """Return the bytes that this process can still have for batches."""
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def peak_of(self, work: Callable[[], object]) -> int:
        """Return the bytes that some work needs at its peak, beside what is in use already."""
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
