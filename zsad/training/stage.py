"""What a training loop must know of a method: batches in, a loss out, and what is trained.

The loop (data, devices, resuming, progress) is the same for every method and knows none; a method
is a list of stages, each of which trains one module of a detector while the rest stays as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zsad.training.augment import Augmentation


class TrainingBatch(NamedTuple):
    """Labelled pictures, augmented and ready for CLIP."""

    images: Tensor
    """float32 (B, 3, R, R), normalised as the backbone wants it."""
    masks: Tensor
    """float32 (B, R, R): 1 where a pixel is anomalous, else 0."""
    labels: Tensor
    """int64 (B,): 1 anomalous, 0 normal."""
    class_names: list[str]
    """What goes into the sentences, B of them: "metal nut which has four notched edges"."""


class Stage(nn.Module, ABC):
    """One phase of a training run.

    Its `forward` can be wrapped in DistributedDataParallel, after `prepare`.
    """

    name: str
    """What is trained: part of file names and of progress lines."""
    epochs: int
    batch_size: int
    """Pictures a step, over all workers."""
    augmentation: Augmentation
    """How far pictures are changed."""
    masks_by_area: bool = False
    """How masks are resized; see `zsad.preprocess.squash_mask`."""
    trained: nn.Module
    """The module that is optimised; its state is the stage's result."""

    @abstractmethod
    def prepare(self, class_names: Sequence[str]) -> None:
        """Freeze what is not trained, and compute what stays the same for the whole stage.

        Called once, before the first step, also of a run that continues; the earlier stages are
        finished by then.

        Args:
            class_names: every name that a batch of this stage can bring.
        """

    @abstractmethod
    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return scalars, float32: `loss` is minimised, the other entries are its terms."""

    @abstractmethod
    def optimiser(self) -> Optimizer:
        """Return a new optimiser of what is trained."""

    @abstractmethod
    def scheduler(self, optimiser: Optimizer) -> LRScheduler:
        """Return a new scheduler, to be stepped after every batch."""


def train_only(detector: nn.Module, trained: nn.Module) -> None:
    """Freeze a detector but for one of its parts."""
    detector.eval().requires_grad_(False)
    trained.requires_grad_(True)
