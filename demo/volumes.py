"""Brain volumes to test on: the template warped in three dimensions, half of them with a lesion.

Training pictures warp one slice at a time (`template.py`); these are whole volumes with a shape,
brightness and coil shading of their own, and lesions that run through several slices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from fields import Rng, ramp
from scipy import ndimage
from splits import Split, of_split
from template import template_volume

MILLIMETRES = 2.0
"""Size of a voxel."""
ENOUGH_TISSUE, ENOUGH_LESION = 0.1, 0.004
"""Shares of a slice: with less brain it is left out, with less lesion too, as nobody sees it."""


class BrainSlice(NamedTuple):
    """One axial slice, seen from above with the nose upwards."""

    tone: np.ndarray
    """(H, W) uint8."""
    mask: np.ndarray
    """(H, W) bool."""


def brain_volume(rng: Rng, split: Split, *, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return brightness in 0…1, (I, J, K) float32, and the lesion (I, J, K) bool, maybe empty."""
    volume = _warped(rng)
    mask = np.zeros(volume.shape, dtype=bool)
    if lesion:
        looks = LESIONS[str(rng.choice(of_split(LESIONS, split)))]
        volume, mask = looks(rng, volume)
    return _scanned(rng, volume), mask


def slices_of(volume: np.ndarray, mask: np.ndarray, *, count: int) -> list[BrainSlice]:
    """Return up to `count` axial slices that show enough of the brain and of the lesion, if any."""
    enough = np.mean(volume > 0.1, axis=(0, 1)) > ENOUGH_TISSUE
    if mask.any():
        enough &= mask.mean(axis=(0, 1)) > ENOUGH_LESION
    levels = np.flatnonzero(enough)
    if not len(levels):
        return []
    chosen = {int(levels[int(n)]) for n in np.linspace(0, len(levels) - 1, count)}
    return [
        BrainSlice(np.rint(volume[:, ::-1, k].T * 255).astype(np.uint8), mask[:, ::-1, k].T)
        for k in sorted(chosen)
    ]


def _warped(rng: Rng) -> np.ndarray:
    """Return the template turned, stretched and bent, (I, J, K)."""
    template = template_volume()
    shape = np.array(template.shape)
    turn = np.eye(3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = rng.normal(0, np.deg2rad(4))
        plane = np.eye(3)
        plane[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        turn = turn @ plane
    points = np.indices(template.shape) - (shape / 2)[:, None, None, None]
    points = np.tensordot(turn * rng.uniform(0.92, 1.1, 3), points, axes=1)
    bend = np.stack([_smooth(rng, template.shape, cells=6, strength=1.5) for _ in range(3)])
    where = points + bend + (shape / 2 + rng.normal(0, 1.5, 3))[:, None, None, None]
    return np.asarray(ndimage.map_coordinates(template, where, order=1, mode="constant"))


def _scanned(rng: Rng, volume: np.ndarray) -> np.ndarray:
    """Return the volume with another contrast, uneven sensitivity of the coil, and noise."""
    shading = _smooth(rng, volume.shape, cells=4, strength=0.06)
    tone = 0.9 * np.clip(volume, 0, 1) ** rng.uniform(0.8, 1.4) * (1 + shading)
    tone = tone + rng.uniform(0, 0.02) * rng.standard_normal(volume.shape) * (volume > 0.02)
    return np.asarray(np.clip(tone, 0, 1), dtype=np.float32)


def _smooth(rng: Rng, shape: tuple[int, ...], *, cells: int, strength: float) -> np.ndarray:
    """Return noise (I, J, K) of a deviation near `strength`, with `cells` features an axis."""
    coarse = rng.normal(0, strength, (cells, cells, cells))
    return np.asarray(ndimage.zoom(coarse, np.array(shape) / cells, order=2))


def _distance(rng: Rng, volume: np.ndarray, radius: float) -> np.ndarray:
    """Return distances from a random place in the brain, in units of a radius in mm, uneven."""
    depth = ndimage.distance_transform_edt(volume > 0.3) * MILLIMETRES
    places = np.argwhere(depth > min(radius, depth.max() * 0.6))
    offset = np.indices(volume.shape) - places[rng.integers(len(places))][:, None, None, None]
    offset = offset * MILLIMETRES * rng.uniform(0.85, 1.2, 3)[:, None, None, None]
    lumps = ndimage.gaussian_filter(rng.normal(size=volume.shape), 4)
    return np.asarray(np.linalg.norm(offset, axis=0) / radius + 0.12 * lumps / lumps.std())


def _put(volume: np.ndarray, cover: np.ndarray, tone: np.ndarray | float) -> np.ndarray:
    cover = cover * (volume > 0.3)
    return np.asarray(volume + cover * (tone - volume))


def _ring(rng: Rng, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bright rim around a dark core."""
    r = _distance(rng, volume, rng.uniform(9, 18))
    tone = 1.0 + (rng.uniform(0.1, 0.35) - 1.0) * ramp(r, 0.8, 0.65)
    return _put(volume, ramp(r, 1.05, 0.95), tone), (r < 1) & (volume > 0.3)


def _cavity(rng: Rng, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluid with a sharp edge."""
    r = _distance(rng, volume, rng.uniform(7, 16))
    return _put(volume, ramp(r, 1.05, 0.95), rng.uniform(0.02, 0.15)), (r < 1) & (volume > 0.3)


def _oedema(rng: Rng, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Swollen tissue that darkens towards the middle; the mask is where it is half as strong."""
    r = _distance(rng, volume, rng.uniform(12, 20))
    return _put(volume, 0.85 * ramp(r, 1.4, 0.4), 0.2), (r < 0.9) & (volume > 0.3)


def _foci(rng: Rng, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two to five round spots, all of them dark."""
    spots = [_distance(rng, volume, rng.uniform(6, 9)) for _ in range(int(rng.integers(2, 6)))]
    r = np.min(spots, axis=0)
    return _put(volume, ramp(r, 1.1, 0.9), 0.12), (r < 1) & (volume > 0.3)


def _mass(rng: Rng, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tissue of one brightness."""
    r = _distance(rng, volume, rng.uniform(8, 16))
    return _put(volume, ramp(r, 1.1, 0.9), rng.uniform(0.2, 0.4)), (r < 1) & (volume > 0.3)


Lesion = Callable[[Rng, np.ndarray], tuple[np.ndarray, np.ndarray]]
LESIONS: dict[str, Lesion] = {
    "mass": _mass,
    "ring": _ring,
    "cavity": _cavity,
    "oedema": _oedema,
    "foci": _foci,
}
