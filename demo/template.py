"""Brain slices of an average of 152 people, the template that nilearn ships, each time warped anew.

Drawn brains teach what a lesion is, but not what folds and ventricles look like.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from fields import Rng, noise, turned_grid
from nilearn.datasets import load_mni152_template
from scipy import ndimage

ENOUGH_TISSUE = 0.04
"""Share of a slice below which there is too little to see."""


def template_brain(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tones (R, R) in 0…1 of a warped slice, and where lesions may be (R, R) bool."""
    plane = _random_plane(rng)
    angle, stretch = rng.normal(0, 0.12), rng.uniform(0.85, 1.2, 2)
    v, u = turned_grid(size, angle, (rng.normal(0, 0.04), rng.normal(0, 0.04)))
    bend = rng.uniform(0, 0.06)
    v = v * stretch[0] + bend * noise(rng, size, 3)
    u = u * stretch[1] + bend * noise(rng, size, 3)
    height, width = plane.shape
    where = np.stack([(v + 1) / 2 * (height - 1), (u + 1) / 2 * (width - 1)])
    tone = ndimage.map_coordinates(plane, where, order=1, mode="constant")
    inside = tone > 0.3
    tone = np.clip(tone, 0, 1) ** np.float32(rng.uniform(0.7, 1.6))
    if rng.random() < 0.15:  # other sequences show tissue the other way round
        tone = np.where(inside, 1.15 - tone, tone)
    return np.clip(tone, 0, 1).astype(np.float32), inside


def _random_plane(rng: Rng) -> np.ndarray:
    volume = template_volume()
    while True:
        axis = int(rng.choice(3, p=[0.1, 0.1, 0.8]))
        plane: np.ndarray = volume.take(int(rng.integers(volume.shape[axis])), axis=axis)
        if np.mean(plane > 0.3) > ENOUGH_TISSUE:
            return plane.T[::-1, :: int(rng.choice([-1, 1]))]


@cache
def template_volume() -> np.ndarray:
    """Return the template, float32 (99, 117, 95) in about 0…1, 2 mm."""
    values = np.asarray(load_mni152_template(resolution=2).dataobj, dtype=np.float32)
    return values / np.float32(np.quantile(values[values > 0], 0.995))
