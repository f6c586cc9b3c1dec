"""Where a defect is: regions of random place, size and outline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from fields import (
    Rng,
    draw_lines,
    draw_polygon,
    noise,
    octaves,
    pick,
    ramp,
    random_walk,
    turned_grid,
)
from scenes import Scene

Region = Callable[[Rng, Scene], np.ndarray]
"""Returns (R, R) in 0…1: how much of each pixel the defect covers."""


def blob(rng: Rng, scene: Scene) -> np.ndarray:
    """An irregular patch with a soft or a sharp edge."""
    size, radius = len(scene.image), radius_of(rng)
    v, u = turned_grid(size, rng.uniform(0, np.pi), centre_of(rng, scene))
    stretch = rng.uniform(1, 2.5)
    distance = np.hypot(v * np.float32(stretch / radius), u / np.float32(radius))
    ragged = rng.uniform(0, 0.3) * octaves(rng, size, int(2 + 3 / radius), count=3)
    soft = rng.uniform(0.03, 0.4)
    return ramp(distance + ragged, 1 + soft, 1 - soft)


def specks(rng: Rng, scene: Scene) -> np.ndarray:
    """Many small spots in a loose group: rust, mould, calcification, dust."""
    size = len(scene.image)
    v, u = turned_grid(size, 0, centre_of(rng, scene))
    group = ramp(np.hypot(v, u), radius_of(rng, 0.15, 0.6), 0)
    level = rng.uniform(0.6, 1.4)
    return ramp(noise(rng, size, int(rng.integers(12, 40))) + 2.2 * group, level + 1.4, level + 1.8)


def piece(rng: Rng, scene: Scene) -> np.ndarray:
    """A polygon or a rectangle with sharp edges."""
    centre, radius = centre_of(rng, scene), radius_of(rng, 0.06, 0.5)
    if rng.random() < 0.5:
        return draw_polygon(
            len(scene.image), corners_of(rng, centre, radius, int(rng.integers(4, 10)))
        )
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.2, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    box = np.array([[-flat, -1], [-flat, 1], [flat, 1], [flat, -1]]) * radius
    return draw_polygon(len(scene.image), box @ np.array([[cos, sin], [-sin, cos]]) + centre)


def element(rng: Rng, scene: Scene) -> np.ndarray:
    """One thing of a regular texture, or a few: a tile, a dot, a pebble."""
    if scene.elements is None:
        return piece(rng, scene)
    row, column = ((np.array(centre_of(rng, scene)) + 1) / 2 * len(scene.image)).astype(int)
    reach = max(2, len(scene.image) // 8)
    nearby = scene.elements[row : row + reach, column : column + reach]
    numbers = np.unique(nearby[nearby > 0])[: int(rng.integers(1, 4))]
    return np.isin(scene.elements, numbers).astype(np.float32)


def scratch(rng: Rng, scene: Scene) -> np.ndarray:
    """One to three long thin curves, side by side."""
    size = len(scene.image)
    steps = int(rng.integers(8, 40))
    path = random_walk(rng, steps=steps, step=0.04, wander=rng.uniform(0, 0.12))
    path += centre_of(rng, scene) - path[steps // 2]
    width = size / 128 * rng.uniform(1, 3.5)
    shifts = rng.normal(0, 0.06, (int(pick(rng, 1, 1, 2, 3)), 2))
    return draw_lines(size, ((path + shift, width, 255) for shift in shifts))


def crack(rng: Rng, scene: Scene) -> np.ndarray:
    """A jagged line with branches that get thinner."""
    size = len(scene.image)
    width = size / 128 * rng.uniform(1.5, 3.5)
    main = random_walk(rng, steps=int(rng.integers(10, 30)), step=0.05, wander=0.35)
    main += centre_of(rng, scene) - main[len(main) // 2]
    lines = [(main, width, 255)]
    for start in rng.integers(0, len(main), int(rng.integers(0, 5))):
        twig = random_walk(rng, steps=int(rng.integers(4, 10)), step=0.04, wander=0.4)
        lines.append((twig + main[start], width * 0.6, 255))
    return draw_lines(size, lines)


def centre_of(rng: Rng, scene: Scene) -> tuple[float, float]:
    """Return a random place (y, x) in -1…1 where defects may be."""
    places = np.flatnonzero(scene.inside)
    place = int(places[rng.integers(len(places))]) if len(places) else scene.inside.size // 2
    row, column = divmod(place, len(scene.inside))
    return row * 2 / len(scene.inside) - 1, column * 2 / len(scene.inside) - 1


def radius_of(rng: Rng, low: float = 0.05, high: float = 0.55) -> float:
    """Return a radius with every order of magnitude equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def corners_of(rng: Rng, centre: tuple[float, float], radius: float, count: int) -> np.ndarray:
    """Return the corners (count, 2) of an irregular polygon around `centre`."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = radius * rng.uniform(0.6, 1.3, count)
    return np.stack([np.sin(angle) * reach, np.cos(angle) * reach], axis=1) + centre


def discs(rng: Rng, scene: Scene) -> np.ndarray:
    """Three to eight small round spots."""
    size = len(scene.image)
    cover = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(3, 9))):
        v, u = turned_grid(size, 0, centre_of(rng, scene))
        radius = radius_of(rng, 0.05, 0.11)
        cover = np.maximum(cover, ramp(np.hypot(v, u), radius * 1.15, radius * 0.85))
    return cover
