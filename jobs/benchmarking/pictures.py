"""Pictures to measure with: drawn, of several classes, each with something to find."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Picture(NamedTuple):
    """A slice and what it shows."""

    class_name: str
    pixels: np.ndarray
    """uint8 (R, R, 3)."""


def draw_pictures(count: int, size: int) -> list[Picture]:
    """Return the same `count` pictures of size × size every time, class by class in turn."""
    y, x = np.mgrid[0:size, 0:size] / size
    return [_draw(number, y, x) for number in range(count)]


def _draw(number: int, y: np.ndarray, x: np.ndarray) -> Picture:
    rng = np.random.default_rng(number)
    tones = _tones(y, x)
    name = tuple(tones)[number % len(tones)]
    v, u = rng.uniform(0.3, 0.7, 2)
    defect = np.hypot(y - v, x - u) < rng.uniform(0.03, 0.08)
    tone = np.where(defect, 1 - tones[name], tones[name]) + 0.03 * rng.standard_normal(y.shape)
    pixels = tone[..., None] * rng.uniform(0.5, 1, 3)
    return Picture(name, (pixels.clip(0, 1) * 255).astype(np.uint8))


def _tones(y: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return a pattern a class, (R, R) in 0…1; the brain in empty surroundings, as scans are."""
    radius = np.hypot(y - 0.5, x - 0.5)
    inside = np.hypot((y - 0.5) / 0.4, (x - 0.5) / 0.3) < 1
    ring = (radius > 0.15) & (radius < 0.42)
    return {
        "carpet": 0.5 + 0.2 * np.sin(160 * x + 6 * np.sin(5 * y)) + 0.2 * np.sin(160 * y),
        "brain": inside * (0.6 + 0.2 * np.cos(20 * radius)),
        "tile": 0.3 + 0.4 * ((np.floor(x * 12) + np.floor(y * 12)) % 2),
        "metal-nut": np.where(ring, 0.6 + 0.3 * np.sin(60 * radius), 0.1),
    }
