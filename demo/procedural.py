"""Training pictures of the demonstration model: an endless supply, drawn and damaged by program.

No photograph is used, so that the photographs of the sample archive show how far the model
carries beyond what it has seen. Some of the scans are drawn, more are warped slices of the MNI152
template, which the brains of the sample archive are made of too: there only the lesions are new
to the model. A picture depends on the seed and its number alone: workers can share a stream, and
a run can be repeated.

Look at some of them:

    python demo/procedural.py --output sheet.png
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blemishes import add_defects
from fields import Rng, noise, pick, turned_grid
from PIL import Image
from scenes import MEDICAL, scene
from scipy import ndimage
from splits import Split


class Sample(NamedTuple):
    """One picture with its truth."""

    image: np.ndarray
    """(R, R, 3) uint8."""
    mask: np.ndarray
    """(R, R) bool: the defects; all False in a normal picture."""
    class_name: str
    domain: str
    """"industrial" or "medical"."""


def samples(
    *,
    size: int,
    seed: int,
    split: Split = Split.TRAIN,
    first: int = 0,
    step: int = 1,
    defective: float = 0.5,
) -> Iterator[Sample]:
    """Yield the samples number `first`, `first + step`, … of a stream, without end.

    Args:
        size: R, the side of the pictures in pixels.
        seed: Which stream.
        split: Which classes and kinds of defect.
        first: Where to start; give each of N workers its own, and `step` N.
        step: Distance between the numbers.
        defective: Share of the samples that have defects.
    """
    for number in itertools.count(first, step):
        yield make_sample(np.random.default_rng([seed, number]), size, split, defective=defective)


class Pair(NamedTuple):
    """One picture as it should be, and damaged; light, sharpness and noise are the same."""

    clean: np.ndarray
    """(R, R, 3) uint8."""
    damaged: np.ndarray
    mask: np.ndarray
    """(R, R) bool, never empty."""
    class_name: str
    domain: str


def make_pair(rng: Rng, size: int, split: Split) -> Pair:
    """Draw one pair of (size, size) pixels."""
    normal = scene(rng, size, split)
    image, mask = add_defects(rng, normal)
    state = rng.bit_generator.state
    damaged = _photograph(rng, image, normal.domain)
    rng.bit_generator.state = state
    clean = _photograph(rng, normal.image, normal.domain)
    return Pair(clean, damaged, mask, normal.class_name, normal.domain)


def make_sample(
    rng: Rng, size: int, split: Split, *, defective: float = 0.5, medical: float = 0.5
) -> Sample:
    """Draw one sample of (size, size) pixels; the shares are of defective pictures and scans."""
    normal = scene(rng, size, split, medical=medical)
    image, mask = normal.image, np.zeros((size, size), dtype=bool)
    if rng.random() < defective:
        image, mask = add_defects(rng, normal)
    image = _photograph(rng, image, normal.domain)
    return Sample(image, mask, normal.class_name, normal.domain)


def _photograph(rng: Rng, image: np.ndarray, domain: str) -> np.ndarray:
    """Return what a camera or a scanner makes of a picture: (R, R, 3) uint8.

    Light, sharpness and noise are applied last, over normal and defective parts alike, so that
    none of them gives a defect away.
    """
    size = len(image)
    if rng.random() < 0.3:
        sigma = size / 128 * rng.uniform(0.3, 0.9)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=2)
    v, _ = turned_grid(size, rng.uniform(0, 2 * np.pi))
    light = 1 + rng.uniform(0, 0.25) * v + rng.uniform(0, 0.12) * noise(rng, size, 2)
    light /= light.max()  # nothing is overexposed: a defect must stay visible
    image = np.clip(image * light[..., None], 0, 1) ** np.float32(rng.uniform(0.8, 1.25))
    strength = rng.uniform(0, 0.03) * pick(rng, 0, 1, 1)
    if strength:
        grain = strength * rng.standard_normal((size, size, 1), dtype=np.float32)
        # A scanner has no noise to speak of outside the body, where the signal is zero.
        image = image + (grain * (image > 0.02) if domain == MEDICAL else grain)
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def contact_sheet(stream: Iterator[Sample], rows: int, columns: int) -> np.ndarray:
    """Return (rows × R, columns × R, 3) uint8: pictures with their defects outlined in red."""
    tiles, red = [], np.array([255, 0, 0], dtype=np.uint8)
    for sample in itertools.islice(stream, rows * columns):
        grown = ndimage.binary_dilation(sample.mask)
        outline = ndimage.binary_dilation(grown) ^ grown
        tiles.append(np.where(outline[..., None], red, sample.image))
    lines = [np.concatenate(tiles[row : row + columns], 1) for row in range(0, len(tiles), columns)]
    return np.concatenate(lines)


def main() -> None:
    """Write a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="a PNG file")
    parser.add_argument("--size", type=int, default=128, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=Split, choices=list(Split), default=Split.TRAIN)
    arguments = parser.parse_args()
    stream = samples(size=arguments.size, seed=arguments.seed, split=arguments.split)
    Image.fromarray(contact_sheet(stream, rows=8, columns=10)).save(arguments.output)


if __name__ == "__main__":
    main()
