"""What happens inside a lesion's region: changes of the tissue of a scan."""

from __future__ import annotations

import numpy as np
from fields import Rng, octaves, pick, ramp
from scenes import Scene
from scipy import ndimage
from textures import texture


def mass(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Tissue of another brightness, the same everywhere but for its grain."""
    level = np.clip(_around(scene) + pick(rng, -1, 1) * rng.uniform(0.15, 0.6), 0, 1)
    tone = level + rng.uniform(0, 0.06) * octaves(rng, len(cover), 16, count=2)
    return _towards(scene, tone, rng.uniform(0.7, 1))


def implant(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Something that is no tissue: a grey pattern."""
    return _towards(scene, texture(rng, len(cover), scene.split)[1].tone, rng.uniform(0.7, 1))


def ring(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """A bright rim around a dark core."""
    depth = ramp(ndimage.gaussian_filter(cover, len(cover) / 50), 0.5, 0.95)
    bright, dark = rng.uniform(0.92, 1), rng.uniform(0, 0.35)
    return _towards(scene, bright + (dark - bright) * ramp(depth, 0.3, 0.7), 1)


def cavity(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Nothing but fluid."""
    return _towards(scene, np.full_like(cover, rng.uniform(0, 0.12)), 1)


def oedema(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Swollen tissue, washed out towards one brightness, the more so in the middle."""
    level = pick(rng, rng.uniform(0, 0.25), rng.uniform(0.92, 1))
    heart = ndimage.gaussian_filter(cover, len(cover) / 20)
    strength = rng.uniform(0.75, 1) * ramp(heart, 0.1, 0.7)
    return np.asarray(scene.image + strength[..., None] * (np.float32(level) - scene.image))


def foci(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Spots all of one brightness."""
    return _towards(scene, np.full_like(cover, pick(rng, 0.05, 1)), rng.uniform(0.8, 1))


def _around(scene: Scene) -> float:
    tissue = scene.image[::4, ::4][scene.inside[::4, ::4]]
    return float(np.median(tissue)) if len(tissue) else 0.5


def _towards(scene: Scene, tone: np.ndarray, opacity: float) -> np.ndarray:
    return np.asarray(scene.image + opacity * (tone.astype(np.float32)[..., None] - scene.image))
