"""From maps to the numbers that a ranking is made of. Scores are raw: higher is more anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRange:
    """The constants that put a map's maximum and an image score on one scale.

    AA-CLIP's published evaluation takes them from the test set (the minimum and maximum over all
    images of a class). That would make a scan's score depend on its neighbours, so here they are
    constants: they belong to the checkpoint, and a calibration can replace them.
    """

    map: tuple[float, float]
    """Values of an anomaly map that count as 0 and 1."""
    image: tuple[float, float]
    """Image scores that count as 0 and 1."""

    def __post_init__(self) -> None:
        for name, (low, high) in (("map", self.map), ("image", self.image)):
            if not low < high:
                raise ValueError(f"{name} range must have low < high, is ({low}, {high})")

    def scale_map(self, values: Tensor) -> Tensor:
        """Map values → around 0…1, not clipped."""
        return (values - self.map[0]) / (self.map[1] - self.map[0])

    def scale_image(self, values: Tensor) -> Tensor:
        """Image scores → around 0…1, not clipped."""
        return (values - self.image[0]) / (self.image[1] - self.image[0])


def pool_slices(slice_scores: Sequence[float | None]) -> float | None:
    """Pool slice scores into a scan score: the mean of the k highest, k = n // 16 + 1.

    A lesion spans several slices, a single noisy slice does not; VadCLIP (arXiv 2308.11681) pools
    the frames of a video by the same rule. One slice is its own pool; none gives None.
    """
    scored = np.sort([score for score in slice_scores if score is not None])
    if not len(scored):
        return None
    return float(scored[-(len(scored) // 16 + 1) :].mean())
