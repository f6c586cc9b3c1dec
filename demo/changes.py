"""What happens inside a defect's region: changes of a surface or an object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from fields import Rng, noise, pick, ramp
from scenes import Scene
from scipy import ndimage
from textures import colourise, texture

Change = Callable[[Rng, Scene, np.ndarray], np.ndarray]
"""Takes a scene and the region (R, R) in 0…1; returns the picture (R, R, 3) changed everywhere."""


def paint(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """One colour with a little grain, opaque or see-through."""
    colour = rng.uniform(0, 1, 3) if rng.random() < 0.6 else np.repeat(rng.uniform(0, 1), 3)
    grain = rng.uniform(0, 0.08) * noise(rng, len(cover), len(cover) // 3)[..., None]
    opacity = rng.uniform(0.4, 1)
    return np.asarray(scene.image + opacity * (colour.astype(np.float32) + grain - scene.image))


def shade(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Darker or brighter, with the structure left visible: damp, oil, a bruise, wear."""
    tint = 1 + rng.normal(0, 0.1, 3).astype(np.float32) * pick(rng, 0, 1)
    factor = rng.uniform(0.25, 0.75) if rng.random() < 0.6 else rng.uniform(1.3, 2.2)
    rim = rng.uniform(0, 0.3) * (ramp(cover, 0.2, 0.5) - ramp(cover, 0.5, 0.95))
    return np.asarray(scene.image * (factor * tint) - rim[..., None])


def missing(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """What lies behind the surface shows."""
    return scene.behind


def groove(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Relief: one flank lit, the other in shadow."""
    y, x = np.gradient(ndimage.gaussian_filter(cover, len(cover) / 128))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3)
    relief = np.float32(strength * np.cos(angle)) * x + np.float32(strength * np.sin(angle)) * y
    return np.asarray(scene.image + (relief - rng.uniform(-0.1, 0.3) * cover)[..., None])


def hole(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """A dark pit with a bright or a dark rim."""
    deep = scene.image * rng.uniform(0, 0.3)
    rim = rng.uniform(-0.5, 0.5) * (ramp(cover, 0, 0.4) - ramp(cover, 0.4, 0.9))
    return np.asarray(deep + rim[..., None])


def foreign(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Another material."""
    patch = colourise(rng, texture(rng, len(cover), scene.split)[1].tone)
    return np.asarray(scene.image + rng.uniform(0.7, 1) * (patch - scene.image))


def burn(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Charred in the middle, scorched brown around."""
    heat = ndimage.gaussian_filter(cover, len(cover) / 40)
    scorched = scene.image * np.array([0.75, 0.5, 0.3], np.float32)
    charred = 0.04 + 0.05 * noise(rng, len(cover), len(cover) // 4)[..., None]
    core = ramp(heat, 0.45, rng.uniform(0.7, 0.95))[..., None]
    return np.asarray(scorched + (charred - scorched) * core)


def magnified(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """The same material at twice the size, or half."""
    size = len(cover)
    if rng.random() < 0.5:
        half = scene.image[size // 4 : size // 4 + (size + 1) // 2, size // 4 : -(size // 4)]
        half = half[:, : (size + 1) // 2]
        return np.repeat(np.repeat(half, 2, axis=0), 2, axis=1)[:size, :size]
    small = scene.image[::2, ::2]
    return np.tile(small, (2, 2, 1))[:size, :size]


def turned(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """The same material at a right angle, or upside down."""
    return np.rot90(scene.image, int(rng.integers(1, 4)))


def shifted(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """The same material from somewhere else: structures do not meet at the seam."""
    size = len(cover)
    shift = rng.integers(size // 10, size // 2, 2)
    return np.roll(scene.image, tuple(shift.tolist()), axis=(0, 1))


def soften(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Rubbed smooth."""
    sigma = len(cover) / 128 * rng.uniform(2, 5)
    return np.asarray(ndimage.gaussian_filter(scene.image, (sigma, sigma, 0), truncate=2.5))


def smear(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Dragged in one direction."""
    length = int(len(cover) / 128 * rng.uniform(8, 24))
    return np.asarray(ndimage.uniform_filter1d(scene.image, length, axis=int(rng.integers(2))))


def flatten(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """More or less contrast around the local mean: worn print, etched surface."""
    factor = rng.uniform(0, 0.35) if rng.random() < 0.6 else rng.uniform(1.8, 3)
    mean = np.average(scene.image.reshape(-1, 3), axis=0, weights=cover.ravel() + 1e-6)
    return np.asarray(mean.astype(np.float32) * (1 - factor) + factor * scene.image)


def twisted(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Structures bent out of place: a dent, a pulled thread."""
    size = len(cover)
    strength = size * rng.uniform(0.03, 0.1)
    rows, columns = np.indices((size, size), dtype=np.float32)
    rows = rows + strength * noise(rng, size, 7) * cover
    columns = columns + strength * noise(rng, size, 7) * cover
    rows = np.clip(rows, 0, size - 1).astype(np.intp)
    columns = np.clip(columns, 0, size - 1).astype(np.intp)
    return np.asarray(scene.image[rows, columns])


def tinted(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Another colour with the same structure: the wrong thread, a burn."""
    gain = rng.uniform(0.4, 1.4, 3).astype(np.float32)
    return np.asarray(scene.image[..., rng.permutation(3)] * gain)
