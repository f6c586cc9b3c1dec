"""Drawn anatomy: slices that look like a head, a trunk or the back of an eye.

Not atlases: every picture has its own outline, folds, tissue brightness and field of view, so that
a model learns how such pictures vary while healthy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from fields import Rng, draw_lines, noise, noise_at, octaves, pick, ramp, random_walk, turned_grid


class Tissues(NamedTuple):
    """How bright a head's tissues are under one way of imaging, 0…1."""

    fluid: float
    grey: float
    white: float
    bone: float
    skin: float


CONTRASTS = (
    Tissues(fluid=0.2, grey=0.58, white=0.85, bone=0.1, skin=0.8),  # like MR T1
    Tissues(fluid=0.4, grey=0.7, white=0.9, bone=0.1, skin=0.7),  # T1, averaged
    Tissues(fluid=0.95, grey=0.6, white=0.4, bone=0.1, skin=0.6),  # T2
    Tissues(fluid=0.12, grey=0.65, white=0.5, bone=0.08, skin=0.6),  # FLAIR
    Tissues(fluid=0.3, grey=0.5, white=0.42, bone=0.98, skin=0.35),  # CT
)


def anatomy(rng: Rng, size: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Return a random slice: class name, tones (R, R) or (R, R, 3), and where lesions may be."""
    kind = rng.random()
    if kind < 0.7:
        return "brain", *brain(rng, size)
    return ("abdomen", *trunk(rng, size)) if kind < 0.88 else ("retina", *retina(rng, size))


def brain(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice of a head, (R, R) in 0…1, and its brain, (R, R) bool."""
    v, u = turned_grid(size, rng.normal(0, 0.12), (rng.normal(0, 0.07), rng.normal(0, 0.07)))
    if rng.random() < 0.25:  # seen from the side: the mirror axis lies across
        v, u = u, v
    scale = 0.97 - 0.6 * rng.random() ** 2  # mostly large, as most slices of a head are
    v, u = v / np.float32(scale), u / np.float32(scale * rng.uniform(0.68, 0.95))
    across = _nearly_mirrored(rng, u)
    lumps = noise_at(rng, v * np.float32(1.5) + 20, across * np.float32(1.5) + 20)
    depth = 1 - np.hypot(v, u) * (1 + rng.uniform(0, 0.06) * lumps)
    tissues = _vary(rng, CONTRASTS[int(rng.integers(len(CONTRASTS)))])
    tone = _folded(rng, v, across, depth, tissues)
    if scale > 0.5 and rng.random() < 0.75:
        tone = _deep_structures(rng, v, u, tone, tissues)
    if rng.random() < 0.8:  # the gap between the halves
        gap = ramp(np.abs(u + 0.02 * lumps), rng.uniform(0.03, 0.06), 0.01)
        gap = gap * ramp(np.abs(v), 0.25, 0.45)
        tone = tone + (tissues.fluid - tone) * gap
    edge = ramp(depth, -0.015, 0.015)
    return tone * edge + _skull(rng, depth, tissues) * (1 - edge), depth > 0.04


def _nearly_mirrored(rng: Rng, u: np.ndarray) -> np.ndarray:
    """Fold the two halves onto each other, but not quite, (R, R)."""
    return np.asarray(np.abs(u) + np.float32(0.02) * noise(rng, len(u), 4))


def _vary(rng: Rng, tissues: Tissues) -> Tissues:
    return Tissues(*(float(np.clip(tone + rng.normal(0, 0.05), 0, 1)) for tone in tissues))


def _folded(
    rng: Rng, v: np.ndarray, across: np.ndarray, depth: np.ndarray, tissues: Tissues
) -> np.ndarray:
    """Return grey matter along the surface and the folds, white matter within, (R, R)."""
    fold = np.abs(noise_at(rng, *_fold_coordinates(rng, v, across, depth)))
    reach = rng.uniform(0.3, 0.8)
    near_surface = ramp(depth, reach, reach * 0.4)
    width = rng.uniform(0.35, 0.75)
    grey = np.maximum(ramp(fold, width, width * 0.6) * near_surface, ramp(depth, 0.16, 0.07))
    fluid = ramp(fold, width * 0.4, width * 0.1) * near_surface * rng.uniform(0.2, 1)
    tone = tissues.white + (tissues.grey - tissues.white) * grey
    tone = tone + (tissues.fluid - tone) * fluid
    return np.asarray(tone + rng.uniform(0, 0.03) * octaves(rng, len(v), 10, count=3))


def _fold_coordinates(
    rng: Rng, v: np.ndarray, across: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where to look up the noise whose zero lines are the folds, two (R, R).

    Folds run inwards from the surface, or every way where the cut is along the surface.
    """
    fine = np.float32(rng.uniform(3.5, 6.5))
    bend = noise_at(rng, v * fine, across * fine) * np.float32(rng.uniform(0.2, 0.6))
    if rng.random() < 0.35:
        return v * fine + bend, across * fine - bend + 30
    angle = np.arctan2(v, across)
    return angle * fine + bend + 30, depth * fine * np.float32(rng.uniform(0.2, 0.6)) - bend


def _deep_structures(
    rng: Rng, v: np.ndarray, u: np.ndarray, tone: np.ndarray, tissues: Tissues
) -> np.ndarray:
    """Add the paired nuclei of grey matter and the ventricles."""
    bent = np.abs(u + np.float32(0.015) * noise(rng, len(u), 5))
    offset, height = rng.uniform(0.2, 0.32), rng.uniform(-0.15, 0.15)
    nucleus = np.hypot(
        (bent - offset) / rng.uniform(0.08, 0.16), (v - height) / rng.uniform(0.2, 0.35)
    )
    tone = tone + (tissues.grey - tone) * ramp(nucleus, 1.05, 0.85) * rng.uniform(0.4, 1)
    for side in (-1, 1):  # front and back horns spread outwards
        spread, length = rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.35)
        along = side * (v - height) - length * rng.uniform(0.6, 1)
        horn = bent - rng.uniform(0.06, 0.1) - spread * np.maximum(along, -length)
        ventricle = np.hypot(horn / rng.uniform(0.04, 0.1), along / length)
        tone = tone + (tissues.fluid - tone) * ramp(ventricle, 1.05, 0.8)
    return tone


def _skull(rng: Rng, depth: np.ndarray, tissues: Tissues) -> np.ndarray:
    """Return what surrounds the brain: nothing, as after skull stripping, or bone and skin."""
    if rng.random() < 0.5:
        return np.zeros_like(depth)
    gap, bone, skin = np.cumsum(rng.uniform([0.02, 0.05, 0.04], [0.06, 0.12, 0.12])).tolist()
    shell = tissues.fluid + (tissues.bone - tissues.fluid) * ramp(-depth, gap - 0.01, gap + 0.01)
    shell = shell + (tissues.skin - shell) * ramp(-depth, bone - 0.015, bone + 0.015)
    return np.asarray(shell * ramp(-depth, skin + 0.02, skin - 0.01))


def trunk(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice of a body with fat, organs and a spine, (R, R), and its inside, (R, R)."""
    v, u = turned_grid(size, rng.normal(0, 0.08), (rng.normal(0, 0.06), rng.normal(0, 0.06)))
    scale = rng.uniform(0.65, 0.95)
    v, u = v / np.float32(scale * rng.uniform(0.6, 0.9)), u / np.float32(scale)
    depth = 1 - np.hypot(v, u) * (1 + 0.04 * noise(rng, size, 3))
    fat, muscle, bone = rng.uniform(0.1, 0.9), rng.uniform(0.35, 0.6), pick(rng, 0.1, 0.95)
    layer = rng.uniform(0.05, 0.2)
    tone = fat + (muscle - fat) * ramp(depth, layer, layer + 0.03)
    wall = layer + rng.uniform(0.06, 0.15)
    tone = tone + (fat * 0.8 - tone) * ramp(depth, wall, wall + 0.04) * rng.uniform(0.3, 1)
    for _ in range(int(rng.integers(4, 11))):
        tone = _organ(rng, v, u, depth - wall, tone)
    spine = np.hypot(v - rng.uniform(0.4, 0.6), u) + 0.03 * noise(rng, size, 8)
    radius = rng.uniform(0.12, 0.2)
    tone = tone + (bone - tone) * ramp(spine, radius, radius - 0.05)
    tone = tone + rng.uniform(0, 0.03) * noise(rng, size, size // 3)
    return np.clip(tone, 0, 1) * ramp(depth, -0.01, 0.02), depth > layer


def _organ(
    rng: Rng, v: np.ndarray, u: np.ndarray, depth: np.ndarray, tone: np.ndarray
) -> np.ndarray:
    """Add one rounded organ of its own brightness and grain."""
    centre_v, centre_u = rng.uniform(-0.5, 0.4), rng.uniform(-0.65, 0.65)
    radius = rng.uniform([0.08, 0.08], [0.3, 0.4])
    shape = np.hypot((v - centre_v) / radius[0].item(), (u - centre_u) / radius[1].item())
    shape = shape + rng.uniform(0.05, 0.25) * noise(rng, len(v), 6)
    cover = ramp(shape, 1.05, 0.95) * ramp(depth, 0, 0.04)
    grain = rng.uniform(0, 0.05) * octaves(rng, len(v), 16, count=2)
    return np.asarray(tone + (rng.uniform(0.2, 0.95) + grain - tone) * cover)


def retina(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the back of an eye with vessels, (R, R, 3), and its disc, (R, R) bool."""
    v, u = turned_grid(size, rng.uniform(0, 2 * np.pi), (rng.normal(0, 0.04), rng.normal(0, 0.04)))
    edge = rng.uniform(0.8, 1.1) - np.hypot(v, u)
    head = (rng.normal(0, 0.1), rng.uniform(0.3, 0.6))
    nerve = np.hypot(v - head[0], u - head[1])
    tone = 0.5 + 0.05 * octaves(rng, size, 4, count=3) - 0.25 * np.hypot(v, u + 0.1) ** 2
    tone = tone - 0.15 * ramp(np.hypot(v, u + 0.15), 0.3, 0)
    tone = tone + 0.4 * ramp(nerve, rng.uniform(0.13, 0.2), 0.1)
    # The vessels are drawn on the unturned grid; they need not start exactly at the nerve.
    start = _unturn(v, u, head)
    lines = [(path, size / 128 * rng.uniform(0.7, 2.2), 200) for path in _vessels(rng, start)]
    tone = tone * (1 - rng.uniform(0.3, 0.6) * draw_lines(size, lines))
    hue = np.array([1.0, rng.uniform(0.4, 0.7), rng.uniform(0.1, 0.4)], dtype=np.float32)
    hue = np.ones_like(hue) if rng.random() < 0.2 else hue
    return np.clip(tone * ramp(edge, 0, 0.02), 0, 1)[..., None] * hue, edge > 0.05


def _unturn(v: np.ndarray, u: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Return where (y, x) in -1…1 the turned coordinates reach `point`: the closest pixel."""
    closest = int(np.argmin(np.hypot(v - point[0], u - point[1])))
    return np.array(np.unravel_index(closest, v.shape)) * (2 / len(v)) - 1


def _vessels(rng: Rng, start: np.ndarray) -> list[np.ndarray]:
    """Return wandering paths (N, 2), and branches off them."""
    trunks = [start + random_walk(rng, steps=24, step=0.07, wander=0.15) for _ in range(7)]
    branches = [
        path[int(rng.integers(4, 20))] + random_walk(rng, steps=12, step=0.05, wander=0.2)
        for path in trunks
        for _ in range(2)
    ]
    return trunks + branches
