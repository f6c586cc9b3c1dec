"""Random fields and drawn shapes: what every procedural picture is made of.

Everything is a square (R, R) float32 array. Coordinates run from -1 to 1 across the picture, so
that a size in coordinates means the same at every resolution.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

LATTICE = 64  # side of the random lattice behind `noise_at`; it repeats after so many cells
OVERSAMPLING = 3  # drawn shapes are drawn this much larger and averaged: Pillow has no soft edges

Rng = np.random.Generator


@functools.lru_cache(maxsize=8)
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates y and x of the pixels, both (R, R) in -1…1; read only."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    y.setflags(write=False)
    x.setflags(write=False)
    return y, x


def turned_grid(
    size: int, angle: float, centre: tuple[float, float] = (0, 0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates v, u, both (R, R), around `centre` (y, x), turned by `angle` radians."""
    y, x = grid(size)
    y, x = y - np.float32(centre[0]), x - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * y - sin * x, sin * y + cos * x


@functools.lru_cache(maxsize=256)
def _spline(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four coarse points that each of R pixels mixes, (4, R), and their weights (4, R).

    The weights are those of a cubic B-spline over `cells` + 3 points.
    """
    position = np.arange(size, dtype=np.float32) * (cells / size)
    left = position.astype(np.intp)
    t = position - left
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return left + np.arange(4)[:, None], np.stack(weights) / np.float32(6)


def noise(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Return smooth noise (R, R) with mean 0, deviation near 1 and features of R / cells pixels.

    A few points are spread by splines, which is much cheaper than filtering white noise. Sums of
    four rows are used, not matrix products, which start threads and differ between processors.
    """
    points, weights = _spline(size, cells)
    coarse = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32) * np.float32(2.1)
    wide = sum(coarse[:, near] * weight for near, weight in zip(points, weights, strict=True))
    field = np.zeros((size, size), dtype=np.float32)
    for near, weight in zip(points, weights, strict=True):
        field += np.take(wide, near, axis=0) * weight[:, None]
    return field


def octaves(rng: Rng, size: int, cells: int, *, count: int = 4, gain: float = 0.5) -> np.ndarray:
    """Return a sum of `count` noises, each twice as fine and `gain` times as strong, (R, R)."""
    total = noise(rng, size, min(cells, size))
    for level in range(1, count):
        total += np.float32(gain**level) * noise(rng, size, min(cells << level, size))
    return total


def noise_at(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return smooth noise with cells of size 1 at arbitrary coordinates (any shape).

    Mirrored coordinates give mirrored noise: that is how both halves of a brain come out alike.
    """
    lattice = rng.standard_normal(LATTICE * LATTICE, dtype=np.float32) * np.float32(1.4)
    row, column = np.floor(v), np.floor(u)
    t, s = v - row, u - column
    t, s = t * t * (3 - 2 * t), s * s * (3 - 2 * s)
    top = (row.astype(np.int32) % LATTICE) * LATTICE
    bottom = (top + LATTICE) % (LATTICE * LATTICE)
    left = column.astype(np.int32) % LATTICE
    right = (left + 1) % LATTICE
    upper = lattice[top + left] * (1 - s) + lattice[top + right] * s
    lower = lattice[bottom + left] * (1 - s) + lattice[bottom + right] * s
    return np.asarray(upper * (1 - t) + lower * t)


def unit(field: np.ndarray) -> np.ndarray:
    """Stretch a field to 0…1."""
    low, high = field.min(), field.max()
    return np.asarray((field - low) / max(high - low, np.float32(1e-6)))


def ramp(field: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return 0 where the field is before `start`, 1 past `end`, smooth between; either order."""
    t = np.clip((field - np.float32(start)) / np.float32(end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def draw_lines(size: int, lines: Iterable[tuple[np.ndarray, float, int]]) -> np.ndarray:
    """Draw polylines, each (points (N, 2) as y, x in -1…1; width in pixels; tone 0…255).

    Returns (R, R) in 0…1 with soft edges.
    """
    big = size * OVERSAMPLING
    canvas = Image.new("L", (big, big))
    pen = ImageDraw.Draw(canvas)
    for points, width, tone in lines:
        corners = (points[:, ::-1] + 1) * (big / 2)
        thickness = max(1, round(width * OVERSAMPLING))
        pen.line(corners.ravel().tolist(), fill=tone, width=thickness, joint="curve")
    return _shrink(canvas)


def draw_polygon(size: int, points: np.ndarray) -> np.ndarray:
    """Fill a polygon with corners (N, 2) as y, x in -1…1; returns (R, R) in 0…1."""
    big = size * OVERSAMPLING
    canvas = Image.new("L", (big, big))
    corners = (points[:, ::-1] + 1) * (big / 2)
    ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
    return _shrink(canvas)


def _shrink(canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.float32) / np.float32(255)


def random_walk(rng: Rng, *, steps: int, step: float, wander: float) -> np.ndarray:
    """Return a path (steps, 2) as y, x that starts at the origin and turns by `wander` a step."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, steps))
    moves = np.stack([np.sin(heading), np.cos(heading)], axis=1) * step
    return np.asarray(np.cumsum(moves, axis=0) - moves[0])


def pick(rng: Rng, *options: float) -> float:
    """Return one of the numbers; a Python float, because a NumPy one would widen float32 arrays."""
    return options[int(rng.integers(len(options)))]
