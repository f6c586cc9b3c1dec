"""The augmentations that AA-CLIP and AdaCLIP are trained with.

Colours and movements are those of AA-CLIP's official code (`dataset/__init__.py`), mosaics those of
AdaCLIP's (`dataset/base_dataset.py`).

Every draw comes from the generator that is passed in, and, but for mosaics, their number does not
depend on their outcome: a generator made from (seed, epoch, index) gives a picture the same change
on any worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torchvision.transforms import functional as TF

JITTER_CHANCE, MOVE_CHANCE = 0.7, 0.5
MOSAIC_PARTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How far pictures are changed; defaults are those of AA-CLIP's official code."""

    turn: float = 30.0
    """Degrees either way."""
    shift: float = 0.15
    """Share of the side either way."""
    jitter: float = 0.5
    """Brightness, contrast and saturation are multiplied by 1 - jitter … 1 + jitter."""
    mirror: bool = True
    """Whether left may become right, and top bottom, each half of the time."""
    mosaic: float = 0.0
    """The chance that a picture is replaced by a mosaic of four of its class."""

    def __post_init__(self) -> None:
        for name, most in (("turn", 180), ("shift", 1), ("jitter", 1), ("mosaic", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 <= value <= most:
                raise ValueError(f"{name} must be in 0…{most}, is {value}")
        if not isinstance(self.mirror, bool):
            raise ValueError(f"mirror must be true or false, is {self.mirror!r}")


def draw_mosaic(candidates: Sequence[int], rng: np.random.Generator, *, chance: float) -> list[int]:
    """Draw which pictures a mosaic is made of.

    Args:
        candidates: their numbers, at least one. Where there are fewer than four, a picture can come
            more than once.
        rng: for nothing else, since the number of draws varies.
        chance: of a mosaic, see `Augmentation`.

    Returns:
        Four of the candidates; none of them: no mosaic.
    """
    if rng.random() >= chance:
        return []
    repeated = len(candidates) < MOSAIC_PARTS
    return [int(number) for number in rng.choice(candidates, MOSAIC_PARTS, replace=repeated)]


def mosaic(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Put four pictures and their masks together: two above, two below.

    Args:
        images: four of uint8 (H, W, 3). The first decides the size of each part, the others are
            squashed to it, as pictures are to a model's square.
        masks: theirs, bool (H, W).

    Returns:
        uint8 (2·H, 2·W, 3) and bool (2·H, 2·W), of the first picture's H and W.

    Raises:
        ValueError: there are not four of each.
    """
    if not len(images) == len(masks) == MOSAIC_PARTS:
        raise ValueError(
            f"a mosaic takes {MOSAIC_PARTS} pictures, got {len(images)} and {len(masks)} masks"
        )
    height, width = masks[0].shape
    pictures = [
        Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC) for image in images
    ]
    truths = [
        Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        for mask in masks
    ]
    return _two_by_two(pictures), _two_by_two(truths).astype(bool)


def _two_by_two(parts: Sequence[Image.Image]) -> np.ndarray:
    above_left, above_right, below_left, below_right = map(np.asarray, parts)
    return np.vstack([np.hstack([above_left, above_right]), np.hstack([below_left, below_right])])


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
    """Draw a movement for a square of `size` pixels; each part that may happens half the time."""
    turned, degrees = rng.random() < MOVE_CHANCE, rng.uniform(-reach.turn, reach.turn)
    farthest = reach.shift * size
    shifted, shift = rng.random() < MOVE_CHANCE, rng.uniform(-farthest, farthest, 2)
    mirrored, upended = ((rng.random(2) < MOVE_CHANCE) & reach.mirror).tolist()
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
