"""Display pixels, and masks of the truth → the square that a detector takes."""

from __future__ import annotations

import numpy as np
from PIL import Image


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Resize one uint8 slice (H, W, C), C = 1 or 3, to (3, size, size) uint8.

    Pillow's bicubic on uint8, straight to a square: the aspect ratio is not kept. This is how all
    published checkpoints were trained, and no other resize reproduces it bit by bit.
    """
    planes = image[..., 0] if image.shape[-1] == 1 else image
    resized = np.asarray(Image.fromarray(planes).resize((size, size), Image.Resampling.BICUBIC))
    if resized.ndim == 2:
        return np.broadcast_to(resized, (3, size, size))
    return resized.transpose(2, 0, 1)


def squash_mask(mask: np.ndarray, size: int, *, by_area: bool = False) -> np.ndarray:
    """Resize a mask, bool (H, W), to bool (size, size), by Pillow's rules for the same reason.

    Args:
        mask: the truth.
        size: of the square.
        by_area: whether a pixel is set if more than half of what it covers is, by a bilinear
            resize (AdaCLIP), or if the nearest pixel is (AA-CLIP).
    """
    rule = Image.Resampling.BILINEAR if by_area else Image.Resampling.NEAREST
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: np.ndarray = np.asarray(picture.resize((size, size), rule)) > 127
    return resized
