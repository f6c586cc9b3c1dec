"""What every detector promises, whatever its method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from zsad.backbone import BackboneConfig
from zsad.names import Domain

__all__ = [
    "ClassText",
    "Detector",
    "Domain",
    "PatchScores",
    "Ruled",
    "ScoreRule",
    "SentenceTokens",
]


class SentenceTokens(NamedTuple):
    """The sentences of a class on their way through the text tower."""

    tokens: Tensor
    """(P, N, W): what the next block sees."""
    ends: Tensor
    """int64 (P,): each sentence's end-of-text, where its feature is read."""


ClassText = Tensor | SentenceTokens
"""A class's anchors (D, 2), column 0 normal and column 1 anomalous; or, where those depend on the
slice, what does not."""


class PatchScores(NamedTuple):
    """What a detector says of a batch of slices, small enough to travel."""

    maps: Tensor
    """Patch maps (B, h, w) on the token grid, float32, before smoothing."""
    image: Tensor
    """Image scores (B,), float32: the method's own view of the whole slice."""


class ScoreRule(Protocol):
    """What makes maps and numbers of a detector's scores: cheap, and without any weights.

    So they are made wherever they are needed, and not only where the detector is.
    """

    @property
    def heat(self) -> tuple[float, float]:
        """Map values where a picture's heat overlay begins and is full, the same for every scan."""

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        """Turn patch maps (B, h, w) into anomaly maps (B, H, W), higher is more anomalous."""

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        """Return the slice scores (B,) that a ranking is made of."""


class Detector(ScoreRule, Protocol):
    """A CLIP backbone + a method's trained weights + the method's scoring rule.

    A slice gets the same result alone or in any batch, on any worker, in any order.
    """

    @property
    def backbone_config(self) -> BackboneConfig:
        """The CLIP it runs on; `image_size` is the side R of its input."""

    def encode_text(self, class_names: Sequence[str]) -> Sequence[ClassText]:
        """Return what C class names come to before a slice is seen, one entry each."""

    def pack(self, dtype: torch.dtype) -> None:
        """Lay out for inference on this CPU: blocks that see a slice in a type, others in float32.

        Scores stay the same but for rounding; it cannot be saved, trained or moved any more.
        """

    def __call__(self, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        """Score slices: pixels uint8 (B, 3, R, R), and B entries of `encode_text`."""


class Ruled:
    """The part of a detector that its rule answers for."""

    @property
    def rule(self) -> ScoreRule:
        """Of this detector."""
        raise NotImplementedError

    @property
    def heat(self) -> tuple[float, float]:
        """See `ScoreRule`."""
        return self.rule.heat

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        """See `ScoreRule`."""
        return self.rule.render(maps, size, domain)

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        """See `ScoreRule`."""
        return self.rule.slice_scores(scores, domain)
