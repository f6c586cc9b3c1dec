"""Loss terms that the methods share. All take probabilities, not logits, in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SMOOTHING = 1e-5


class SegmentationTerms(NamedTuple):
    """How far a map is from a mask, in three ways; scalars."""

    focal: Tensor
    dice_normal: Tensor
    dice_anomalous: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, as AA-CLIP and AdaCLIP weight them."""
        return self.focal + self.dice_normal + self.dice_anomalous


def segmentation_terms(
    probabilities: Tensor, masks: Tensor, *, dice_by_row: bool = False
) -> SegmentationTerms:
    """Compare a map with the truth.

    Args:
        probabilities: (B, 2, H, W), summing to 1 over the channels: 0 normal, 1 anomalous.
        masks: (B, H, W), 1 where anomalous, else 0.
        dice_by_row: whether each row of pixels has a Dice overlap of its own, not each picture.
    """
    normal, anomalous = probabilities.unbind(dim=1)
    truth = masks
    if dice_by_row:
        normal, anomalous, truth = (x.flatten(0, 1) for x in (normal, anomalous, masks))
    return SegmentationTerms(
        focal=focal_loss(probabilities, masks),
        dice_normal=dice_loss(normal, 1 - truth),
        dice_anomalous=dice_loss(anomalous, truth),
    )


def focal_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -(1 - p)² log p, where p is the probability of the truth.

    Lin et al., arXiv 1708.02002, with gamma 2 and no class weights; p is smoothed by 1e-5 as in
    the variant that AA-CLIP and AdaCLIP train with, and so can pass 1 by as much.

    Args:
        probabilities: (B, 2, …), summing to 1 over the channels.
        targets: (B, …), 0 or 1: the true channel.
    """
    normal, anomalous = probabilities.unbind(dim=1)
    true = targets * anomalous + (1 - targets) * normal
    false = targets * normal + (1 - targets) * anomalous
    p = (1 - _SMOOTHING) * true + _SMOOTHING * false + _SMOOTHING
    return (-((1 - p) ** 2) * p.log()).mean()


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - Dice overlap, one a picture, averaged; 1 is added above and below the bar.

    Args:
        probabilities: (B, …).
        targets: (B, …), 0 or 1.
    """
    p, q = probabilities.flatten(1), targets.flatten(1)
    return (1 - (2 * (p * q).sum(dim=1) + 1) / (p.sum(dim=1) + q.sum(dim=1) + 1)).mean()


def orthogonality_loss(anchors: Tensor, *, squared_first: bool) -> Tensor:
    """Return how much normal and anomalous anchors point the same way, 0 if they are orthogonal.

    Args:
        anchors: (B, D, 2), unit columns.
        squared_first: whether each cosine is squared before the mean over the batch, or the mean
            is squared, where cosines of opposite sign cancel.
    """
    cosines = torch.einsum("bd,bd->b", anchors[..., 0], anchors[..., 1])
    return cosines.square().mean() if squared_first else cosines.mean().square()
