"""A detector on the device of a worker: what every actor that scores pictures holds.

Whoever asks, its batches go to the device in the order in which they are asked for. Who asks
resizes the slices of the next batch meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jobs.batches import SLICES_PER_CORE, BatchLimit, NoMemoryError, fitting, is_lack_of_memory
from jobs.devices import Cpu, Device, Gpu, OnItsWay
from zsad.detectors import ClassText, Detector, PatchScores, load_detector
from zsad.preprocess import squash

Slices = tuple[Sequence[np.ndarray], Sequence[str]]
"""A batch: slices uint8 (H, W, C), C = 1 or 3, of any sizes, and their class names."""

QUEUED = 2
"""Batches that a device has before it: one that it computes, and one that it goes on with."""
GPU_RESIZERS = 4
"""Threads that resize slices for a GPU, at least: one has 700 slices of 512 × 512 done in a second,
and shares its core with those that read and publish."""


class Model:
    """A detector, where and how precisely it runs, and the texts of the classes seen so far."""

    def __init__(
        self, detector: Detector, *, precision: str, threads: int, on_gpu: bool = True
    ) -> None:
        """Put a detector on this worker's GPU, or its CPU.

        Args:
            detector: in eval mode; it is the model's now, and can do nothing but score.
            precision: one of `zsad.names.PRECISIONS`; "auto" is bf16 on a GPU and fp32 on a CPU.
            threads: CPU threads of the model.
            on_gpu: whether to use the GPU that is seen; a worker that asked Ray for none sees all.
        """
        on_gpu = on_gpu and torch.cuda.is_available()
        self.bf16 = {"auto": on_gpu, "bf16": True, "fp32": False}[precision]
        self.on: Device = Gpu(bf16=self.bf16) if on_gpu else Cpu(threads=threads, bf16=self.bf16)
        self.on.take(detector)
        self.detector = detector
        self.threads = threads
        self.texts: dict[str, ClassText] = {}
        self.limit = BatchLimit(sys.maxsize)
        self._turn = threading.Lock()
        self._batches = ThreadPoolExecutor(
            self.on.batches_at_once,
            "batch",
            initializer=torch.set_num_threads,
            initargs=(threads,),
        )
        resizers = 1 if self.device.type == "cpu" else max(GPU_RESIZERS, threads)
        self._resizers = ThreadPoolExecutor(resizers, "resize")

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        clip: str | None,
        precision: str,
        threads: int,
        on_gpu: bool = True,
    ) -> Model:
        """Load a checkpoint; arguments as those of `load_detector`, and above.

        Raises:
            WeightsError: something is missing, broken, or does not fit.
        """
        detector, _ = load_detector(checkpoint, clip=clip)
        return cls(detector, precision=precision, threads=threads, on_gpu=on_gpu)

    @property
    def device(self) -> torch.device:
        """Where the detector is."""
        return self.on.device

    @property
    def side(self) -> int:
        """Side of the detector's input in pixels."""
        return self.detector.backbone_config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a patch map."""
        cells = (
            self.side // self.detector.backbone_config.model_config()["vision_cfg"]["patch_size"]
        )
        return cells, cells

    def settle(self, batch_size: int | None) -> None:
        """Decide how many slices go through the detector at once, and warm up a GPU with them.

        Args:
            batch_size: None: what the device has memory for.
        """
        if isinstance(self.on, Gpu):
            self._settle_on(self.on, batch_size)
        else:
            self.limit.most = batch_size or SLICES_PER_CORE * self.threads

    def score(self, images: Sequence[np.ndarray], class_names: Sequence[str]) -> PatchScores:
        """Score slices uint8 (H, W, C), C = 1 or 3, of any sizes; the result is on the CPU."""
        (scores,) = self.score_batches([(images, class_names)])
        return scores

    def score_batches(self, batches: Iterable[Slices]) -> Generator[PatchScores, None, None]:
        """Score batches; yield the scores of each, on the CPU, in their order.

        While a batch computes, the next ones are asked for and prepared. Several threads may ask:
        each waits for its turn until all batches of the one before are in the queue. So read to
        the end before you ask for more, or close what this returns.

        Raises:
            NoMemoryError: memory does not suffice for a single slice.
        """
        queue: deque[Future[OnItsWay]] = deque()
        try:
            with self._turn:
                for images, class_names in batches:
                    pixels = self._prepare(images)
                    queue.append(self._batches.submit(self._compute, pixels, class_names))
                    if len(queue) > QUEUED:
                        yield queue.popleft().result().wait()
            while queue:
                yield queue.popleft().result().wait()
        finally:
            for future in queue:
                future.cancel()

    def _prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return slices as the detector takes them, uint8 (B, 3, R, R)."""
        pixels = self.on.buffer(len(images), self.side)
        resized = self._resizers.map(squash, images, [self.side] * len(images))
        for place, image in zip(pixels.numpy(), resized, strict=True):
            place[...] = image
        return pixels

    @torch.inference_mode()
    def _compute(self, pixels: Tensor, class_names: Sequence[str]) -> OnItsWay:
        """Queue a batch on the device: in parts, where memory does not suffice for all of it."""
        parts: list[PatchScores] = []
        start = 0
        while start < len(pixels):
            part = slice(start, min(len(pixels), start + self.limit.most))
            scores = self._try(pixels[part], class_names[part])
            if scores is None:
                self.limit.lower(part.stop - part.start)
                self.on.free_memory()
                continue
            parts.append(scores)
            start = part.stop
        return self.on.copy_out(PatchScores(*map(torch.cat, zip(*parts, strict=True))))

    def _try(self, pixels: Tensor, class_names: Sequence[str]) -> PatchScores | None:
        """Return the scores of slices, or None where memory does not suffice.

        The error is not kept: its traceback would hold all that had been computed.
        """
        try:
            texts = [self._text(name) for name in class_names]
            return self.on.run(self.detector, self.on.copy_in(pixels), texts)
        except Exception as error:
            if is_lack_of_memory(error):
                return None
            raise

    def _text(self, class_name: str) -> ClassText:
        if class_name not in self.texts:
            self.texts[class_name] = self.detector.encode_text([class_name])[0]
        return self.texts[class_name]

    def _settle_on(self, gpu: Gpu, batch_size: int | None) -> None:
        """Run batches of blank slices: the first ones load kernels, and show what others need."""
        try:
            self._score_blank(1)
            if batch_size is None:
                one, two = (gpu.peak_of(partial(self._score_blank, n)) for n in (1, 2))
                batch_size = fitting(gpu.room(), one, two)
            self.limit.most = min(batch_size, self.limit.most)  # which two slices may have lowered
            self._score_blank(self.limit.most)
        except NoMemoryError:
            self.limit.most = 1  # each scan's failure says what to do

    def _score_blank(self, slices: int) -> None:
        blank = np.zeros((self.side, self.side, 1), np.uint8)
        self.score([blank] * slices, ["object"] * slices)
