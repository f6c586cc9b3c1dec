"""Defect-free pictures to damage: a textured surface, an object on a background, a scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from anatomy import anatomy
from fields import Rng, octaves, pick, ramp, turned_grid
from splits import Split, of_split
from template import template_brain
from textures import colourise, paper, texture

INDUSTRIAL, MEDICAL = "industrial", "medical"


class Scene(NamedTuple):
    """A normal picture and what a defect needs to know about it."""

    image: np.ndarray
    """(R, R, 3) float32 in 0…1."""
    behind: np.ndarray
    """(R, R, 3) float32: what shows where a piece is missing."""
    inside: np.ndarray
    """(R, R) bool: where defects may be."""
    elements: np.ndarray | None
    """(R, R) int32: the things of a regular texture, see `textures.Texture`."""
    class_name: str
    domain: str
    """"industrial" or "medical"."""
    split: Split


def scene(rng: Rng, size: int, split: Split, *, medical: float = 0.5) -> Scene:
    """Return a scene of a split; `medical` is the share of scans, 1 in 4 others an object."""
    if rng.random() < medical:
        return _scan(rng, size, split)
    return (_object if rng.random() < 0.25 else _surface)(rng, size, split)


def _surface(rng: Rng, size: int, split: Split) -> Scene:
    name, (tone, elements) = texture(rng, size, split)
    image = colourise(rng, tone)
    # A hole shows the ground of the texture: its darkest or its brightest tone.
    ground = np.quantile(image[::8, ::8].reshape(-1, 3), pick(rng, 0.03, 0.97), axis=0)
    behind = np.broadcast_to(ground.astype(np.float32), image.shape)
    return Scene(image, behind, np.ones((size, size), bool), elements, name, INDUSTRIAL, split)


def _scan(rng: Rng, size: int, split: Split) -> Scene:
    if rng.random() < 0.8:
        name, (tone, inside) = "brain", template_brain(rng, size)
    else:
        name, tone, inside = anatomy(rng, size)
    image = tone if tone.ndim == 3 else np.repeat(tone[..., None], 3, axis=2)
    return Scene(image, np.zeros_like(image), inside, None, name, MEDICAL, split)


def _object(rng: Rng, size: int, split: Split) -> Scene:
    name = str(rng.choice(of_split(OUTLINES, split)))
    centre = (rng.normal(0, 0.06), rng.normal(0, 0.06))
    v, u = turned_grid(size, rng.uniform(0, 2 * np.pi), centre)
    depth = OUTLINES[name](rng, v, u)  # coordinates from the edge, positive inside
    cover = ramp(depth, -1.2 / size, 1.2 / size)[..., None]
    ground = paper(rng, size).tone if rng.random() < 0.6 else texture(rng, size, split)[1].tone
    behind = colourise(rng, 0.3 + 0.3 * ground)
    image = behind * (1 - cover) + _body(rng, v, u, depth, split) * cover
    return Scene(image, behind, depth > 0, None, name, INDUSTRIAL, split)


def _body(rng: Rng, v: np.ndarray, u: np.ndarray, depth: np.ndarray, split: Split) -> np.ndarray:
    """Return the coloured face of an object, (R, R, 3): its finish, its edge, its features."""
    size = len(v)
    if rng.random() < 0.5:
        tone = 0.5 + rng.uniform(0, 0.05) * octaves(rng, size, 8)
    else:
        tone = 0.3 + 0.4 * texture(rng, size, split)[1].tone
    bevel = rng.uniform(0.02, 0.25)
    tone = tone + rng.uniform(-0.3, 0.3) * ramp(depth, bevel, 0)
    tone = tone + rng.uniform(-0.25, 0.25) * (v + u)  # one side faces the light
    for feature in (_grooves, _holes, _band):
        if rng.random() < 0.45:
            tone = tone + rng.uniform(0.15, 0.4) * pick(rng, -1, 1) * feature(rng, v, u, depth)
    return colourise(rng, np.clip(tone, 0, 1))


def _grooves(rng: Rng, v: np.ndarray, u: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Lines that follow the outline, (R, R) in 0…1."""
    return ramp(np.sin(depth * rng.uniform(15, 70)), 0.2, 0.9) * (depth > 0)


def _holes(rng: Rng, v: np.ndarray, u: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Equal discs on a circle around the centre, (R, R) in 0…1."""
    count, radius = int(rng.integers(2, 9)), rng.uniform(0.15, 0.45)
    sector = 2 * np.pi / count
    angle = np.mod(np.arctan2(v, u), np.float32(sector)) - np.float32(sector / 2)
    distance = np.hypot(v, u)
    off = np.hypot(distance * np.cos(angle) - np.float32(radius), distance * np.sin(angle))
    hole = radius * min(0.8 * np.sin(sector / 2), 0.35)
    return ramp(off, hole, hole - 0.03)


def _band(rng: Rng, v: np.ndarray, u: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """A printed stripe across, (R, R) in 0…1."""
    half = rng.uniform(0.04, 0.2)
    return ramp(np.abs(v - np.float32(rng.uniform(-0.2, 0.2))), half, half - 0.02)


def _washer(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    outer, inner = rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.4)
    distance = np.hypot(v, u)
    return np.asarray(np.minimum(outer - distance, distance - inner))


def _pill(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    stretch = rng.uniform(1, 1.6)
    return np.asarray(rng.uniform(0.5, 0.85) - np.hypot(v * np.float32(stretch), u))


def _capsule(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    half, radius = rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.35)
    return np.asarray(radius - np.hypot(v, np.maximum(np.abs(u) - np.float32(half), 0)))


def _plate(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    height, width, corner = rng.uniform(0.3, 0.75), rng.uniform(0.4, 0.85), rng.uniform(0.02, 0.2)
    dv = np.abs(v) - np.float32(height - corner)
    du = np.abs(u) - np.float32(width - corner)
    outside = np.hypot(np.maximum(dv, 0), np.maximum(du, 0))
    return np.asarray(corner - outside - np.minimum(np.maximum(dv, du), 0))


def _nut(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    sector = 2 * np.pi / int(rng.integers(4, 9))
    angle = np.mod(np.arctan2(v, u), np.float32(sector)) - np.float32(sector / 2)
    distance = np.hypot(v, u)
    outline = rng.uniform(0.45, 0.8) - distance * np.cos(angle)
    return np.asarray(np.minimum(outline, distance - rng.uniform(0.1, 0.35)))


def _gear(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    teeth, sharp = int(rng.integers(6, 25)), rng.uniform(1, 6)
    tooth = np.tanh(sharp * np.cos(teeth * np.arctan2(v, u)))
    distance = np.hypot(v, u)
    outline = rng.uniform(0.5, 0.8) + rng.uniform(0.02, 0.1) * tooth - distance
    return np.asarray(np.minimum(outline, distance - rng.uniform(0.05, 0.3)))


def _bracket(rng: Rng, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    arm, long = rng.uniform(0.12, 0.3), rng.uniform(0.6, 0.9)
    bar = np.minimum(arm - np.abs(v), long - np.abs(u))
    other = np.minimum(arm - np.abs(u), long - np.abs(v))
    return np.asarray(np.maximum(bar, other))


OUTLINES = {
    "washer": _washer,
    "pill": _pill,
    "capsule": _capsule,
    "metal plate": _plate,
    "nut": _nut,
    "gear": _gear,
    "bracket": _bracket,
}
