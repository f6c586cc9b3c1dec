"""The augmentations that AA-CLIP is trained with (its official code, `dataset/__init__.py`).

Every draw comes from the generator that is passed in, and their number does not depend on their
outcome: a generator made from (seed, epoch, index) gives a picture the same change on any worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torchvision.transforms import functional as TF

JITTER_CHANCE, MOVE_CHANCE = 0.7, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How far pictures are changed; defaults are the official code's."""

    turn: float = 30.0
    """Degrees either way."""
    shift: float = 0.15
    """Share of the side either way."""
    jitter: float = 0.5
    """Brightness, contrast and saturation are multiplied by 1 - jitter … 1 + jitter."""

    def __post_init__(self) -> None:
        for name, most in (("turn", 180), ("shift", 1), ("jitter", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in 0…{most}, is {getattr(self, name)}")


def jitter_colours(image: np.ndarray, rng: np.random.Generator, *, jitter: float) -> np.ndarray:
    """Vary brightness, contrast and saturation, in this order.

    Args:
        image: uint8 (H, W, 3), before it is resized.
        rng: six draws.
        jitter: how far, see `Augmentation`.

    Returns:
        uint8 (H, W, 3).
    """
    picture = Image.fromarray(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        chosen, factor = rng.random() < JITTER_CHANCE, rng.uniform(1 - jitter, 1 + jitter)
        if chosen:
            picture = enhance(picture).enhance(factor)
    return np.asarray(picture)


class Movement(NamedTuple):
    """What `move` does, in this order."""

    degrees: float
    """Anticlockwise."""
    shift: tuple[int, int]
    """Pixels to the right, pixels down."""
    mirrored: bool
    """Left becomes right."""
    upended: bool
    """Top becomes bottom."""


def move(
    image: Tensor, mask: Tensor, rng: np.random.Generator, reach: Augmentation
) -> tuple[Tensor, Tensor]:
    """Turn, shift and mirror a picture and its mask alike.

    The nearest pixel is taken, so that a mask stays a mask; what comes in from outside is 0, in the
    picture as well, which is CLIP's mean colour.

    Args:
        image: (3, R, R), normalised.
        mask: (R, R), 0 or 1.
        rng: seven draws.
        reach: how far.

    Returns:
        The moved (3, R, R) and (R, R).
    """
    movement = draw_movement(rng, mask.shape[-1], reach)
    moved = apply_movement(torch.cat([image, mask[None]]), movement)
    return moved[:3], moved[3]


def draw_movement(rng: np.random.Generator, size: int, reach: Augmentation) -> Movement:
    """Draw a movement for a square of `size` pixels; each part happens half of the time."""
    turned, degrees = rng.random() < MOVE_CHANCE, rng.uniform(-reach.turn, reach.turn)
    farthest = reach.shift * size
    shifted, shift = rng.random() < MOVE_CHANCE, rng.uniform(-farthest, farthest, 2)
    mirrored, upended = (rng.random(2) < MOVE_CHANCE).tolist()
    return Movement(
        degrees=degrees if turned else 0.0,
        shift=(round(shift[0]), round(shift[1])) if shifted else (0, 0),
        mirrored=mirrored,
        upended=upended,
    )


def apply_movement(planes: Tensor, movement: Movement) -> Tensor:
    """Move planes (C, R, R)."""
    if movement.degrees:
        planes = TF.rotate(planes, movement.degrees)
    if movement.shift != (0, 0):
        planes = TF.affine(
            planes, angle=0.0, translate=list(movement.shift), scale=1.0, shear=[0.0, 0.0]
        )
    flipped = [axis for axis, flip in ((2, movement.mirrored), (1, movement.upended)) if flip]
    return planes.flip(flipped)
