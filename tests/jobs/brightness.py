"""A detector that a test can see through: its scores are how bright a slice is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tiny import TINY_CLIP
from torch import Tensor

from jobs.devices import Cpu
from zsad.backbone import BackboneConfig
from zsad.detectors import ClassText, Detector, PatchScores


class Brightness:
    """Scores are the mean of a slice's pixels, times the number of letters of its class."""

    backbone_config = BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48)

    def __init__(self, before: Callable[[Tensor], object] = lambda pixels: None) -> None:
        """Make a detector that does something with the pixels (B, 3, R, R) before it scores."""
        self.before = before
        self.sizes: list[int] = []
        """Of the batches that it was given."""
        self.encoded: list[str] = []
        self.threads: set[tuple[int, int]] = set()
        """Which threads it ran in, and how many of torch's own each had."""

    def to(self, device: torch.device) -> None:
        assert device.type == "cpu"

    def pack(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def encode_text(self, class_names: Sequence[str]) -> Tensor:
        self.encoded += class_names
        return torch.tensor([float(len(name)) for name in class_names])

    def __call__(self, pixels: Tensor, texts: Sequence[Tensor]) -> PatchScores:
        self.sizes.append(len(pixels))
        self.threads.add((threading.get_ident(), torch.get_num_threads()))
        self.before(pixels)
        image = pixels.float().mean(dim=(1, 2, 3)) * torch.stack(list(texts))
        return PatchScores(maps=image.view(-1, 1, 1).expand(-1, 6, 6), image=image)


class Whole(Cpu):
    """A device that computes batch after batch, each at once, as a GPU does."""

    batches_at_once = 1

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        return detector(pixels, texts)


def grey(*values: int) -> list[np.ndarray]:
    """Return slices uint8 (5, 7, 1), each of one grey value and so of that brightness."""
    return [np.full((5, 7, 1), value, np.uint8) for value in values]
