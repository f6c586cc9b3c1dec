"""Patch maps → anomaly maps: blur on the token grid, interpolation to pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(maps: Tensor, *, size: int, sigma: float) -> Tensor:
    """Blur maps (B, h, w) with a Gaussian of `size` × `size` taps; borders are mirrored.

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
    padded = F.pad(maps[:, None], (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, size, 1))
    return F.conv2d(rows, taps.view(1, 1, 1, size))[:, 0]


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate maps (B, h, w) bilinearly to (B, H, W); the grid's corners meet the image's."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
