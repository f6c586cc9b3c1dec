"""Patches → patch maps → anomaly maps: cosines, blur on the token grid, interpolation to pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 100.0
"""Of the cosines, in the methods' papers and code; what CLIP learnt is not used."""


def level_logits(features: Tensor, anchors: Tensor) -> Tensor:
    """Return 100 × the cosines of patches to both anchors.

    Args:
        features: (B, levels, N, D), unit length.
        anchors: (B, D, 2), unit columns.

    Returns:
        (B, levels, N, 2): 0 normal, 1 anomalous.
    """
    return TEMPERATURE * torch.einsum("blnd,bdk->blnk", features, anchors)


def log_odds(logits: Tensor) -> Tensor:
    """Return how much likelier anomalous is than normal: logits (…, 2) → (…)."""
    return logits[..., 1] - logits[..., 0]


def level_probabilities(
    features: Tensor, anchors: Tensor, grid: tuple[int, int], size: int
) -> Tensor:
    """Return how likely each pixel is normal and anomalous, level by level, as training sees it.

    Args:
        features: (B, levels, h·w, D), unit length.
        anchors: (B, D, 2), unit columns.
        grid: h and w.
        size: R.

    Returns:
        (B, levels, 2, R, R), summing to 1 over the two.
    """
    logits = level_logits(features, anchors).transpose(2, 3)
    B, levels = logits.shape[:2]
    pixels = upsample(logits.reshape(-1, *grid), (size, size))
    return pixels.view(B, levels, 2, size, size).softmax(dim=2)


def gaussian_blur(maps: Tensor, *, size: int, sigma: float) -> Tensor:
    """Blur maps (B, h, w) with a Gaussian of `size` × `size` taps; borders are mirrored.

    A map gets the same result alone and in any batch, to the last bit. A convolution would not give
    it: libraries choose between several ways to do one, by the size of the batch too.

    Raises:
        ValueError: the grid is too small to mirror `size // 2` cells.
    """
    reach = size // 2
    if min(maps.shape[-2:]) <= reach:
        raise ValueError(
            f"a {size}×{size} blur needs a token grid of at least {reach + 1}×{reach + 1}, "
            f"this one is {maps.shape[-2]}×{maps.shape[-1]}: use a larger image size"
        )
    offsets = torch.arange(size, dtype=maps.dtype, device=maps.device) - reach
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    taps = taps / taps.sum()
    padded = F.pad(maps[:, None], (reach, reach, reach, reach), mode="reflect")[:, 0]
    return _slide(_slide(padded, taps, dim=1), taps, dim=2)


def _slide(maps: Tensor, taps: Tensor, *, dim: int) -> Tensor:
    """Return the sums of neighbours along an axis, weighted by taps."""
    length = maps.shape[dim] - len(taps) + 1
    total = taps[0] * maps.narrow(dim, 0, length)
    for start in range(1, len(taps)):
        total = total + taps[start] * maps.narrow(dim, start, length)
    return total


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate maps (B, h, w) bilinearly to (B, H, W); the grid's corners meet the image's."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
