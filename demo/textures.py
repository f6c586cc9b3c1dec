"""Procedural surfaces with names: fabric, tile, wood and twenty more; no photograph is used.

A texture is a field of tones; colours are chosen afterwards. Where a texture consists of things
(tiles, dots, pebbles) it also says which pixel belongs to which, so that a defect can remove one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from fields import Rng, draw_lines, grid, noise, noise_at, octaves, pick, ramp, turned_grid, unit
from splits import Split, of_split


class Texture(NamedTuple):
    """One surface."""

    tone: np.ndarray
    """(R, R) float32 in 0…1."""
    elements: np.ndarray | None = None
    """(R, R) int32: the number of the thing a pixel belongs to, 0 between things."""


class Cells(NamedTuple):
    """A plane divided among scattered points."""

    near: np.ndarray
    """(R, R): distance to the closest point, in cells."""
    border: np.ndarray
    """(R, R): how much farther the second closest point is; 0 on the border."""
    number: np.ndarray
    """(R, R) int32 from 1: which point is closest."""


def _cells(rng: Rng, size: int, *, count: float, jitter: float, warp: float = 0.0) -> Cells:
    """Divide the picture into about count² cells around points `jitter` off a staggered lattice."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    if warp:
        v, u = v + warp * noise(rng, size, 5), u + warp * noise(rng, size, 5)
    v, u = (v + 1.5) * np.float32(count / 2), (u + 1.5) * np.float32(count / 2)
    side = int(1.5 * count) + 6
    offset = rng.uniform(-jitter, jitter, (2, side * side)).astype(np.float32) / 2
    stagger = np.tile(np.where(np.arange(side) % 2, 0.25, -0.25), (side, 1)).T.ravel()
    point_v = (np.repeat(np.arange(side), side) + 0.5 + offset[0]).astype(np.float32)
    point_u = (np.tile(np.arange(side), side) + 0.5 + stagger + offset[1]).astype(np.float32)
    home = np.clip(v, 1, side - 2).astype(np.int32) * side + np.clip(u, 1, side - 2).astype(
        np.int32
    )
    first = np.full(v.shape, np.inf, dtype=np.float32)
    second, number = first.copy(), np.zeros(v.shape, dtype=np.int32)
    for step in (dv * side + du for dv in (-1, 0, 1) for du in (-1, 0, 1)):
        index = home + np.int32(step)
        distance = (v - point_v[index]) ** 2 + (u - point_u[index]) ** 2
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        number = np.where(closer, index, number)
        first = np.minimum(first, distance)
    near = np.sqrt(first)
    return Cells(near, np.sqrt(second) - near, number + 1)


def _shades(rng: Rng, number: np.ndarray, spread: float) -> np.ndarray:
    """Give each number of a label field a random tone around 0.5, (R, R)."""
    tones = 0.5 + spread * rng.uniform(-1, 1, int(number.max()) + 1)
    return np.asarray(tones.astype(np.float32)[number])


def stone(rng: Rng, size: int) -> Texture:
    """Cloudy mineral: noise of many scales."""
    cells, gain = int(rng.integers(5, 16)), rng.uniform(0.5, 0.95)
    return Texture(unit(octaves(rng, size, cells, count=5, gain=gain)))


def sand(rng: Rng, size: int) -> Texture:
    """Fine grains with faint large drifts."""
    grains = noise(rng, size, int(size / rng.uniform(1.5, 4)))
    return Texture(unit(grains + rng.uniform(0, 0.6) * noise(rng, size, 4)))


def paper(rng: Rng, size: int) -> Texture:
    """Almost nothing: a smooth sheet."""
    depth = rng.uniform(0.005, 0.06)
    return Texture(np.clip(0.5 + depth * octaves(rng, size, 8, count=4, gain=0.8), 0, 1))


def marble(rng: Rng, size: int) -> Texture:
    """Bands bent by noise."""
    _, u = turned_grid(size, rng.uniform(0, np.pi))
    bent = u * rng.uniform(2, 8) + rng.uniform(0.5, 1.5) * octaves(rng, size, 3)
    return Texture(unit(np.abs(np.sin(bent)) ** np.float32(rng.uniform(0.4, 1.5))))


def spots(rng: Rng, size: int) -> Texture:
    """Two tones with a winding border, as on camouflage or cow hide."""
    field = octaves(rng, size, int(rng.integers(4, 16)), count=3, gain=0.4)
    edge, width = rng.uniform(-0.7, 0.7), rng.uniform(0.05, 0.5)
    return Texture(ramp(field, edge - width, edge + width))


def cobbles(rng: Rng, size: int) -> Texture:
    """Stones of different tone with dark joints."""
    cells = _cells(rng, size, count=rng.uniform(6, 26), jitter=rng.uniform(0.4, 1))
    body = _shades(rng, cells.number, rng.uniform(0, 0.35)) - rng.uniform(0, 0.4) * cells.near
    tone = body * ramp(cells.border, 0, rng.uniform(0.1, 0.4))
    return Texture(unit(tone + 0.03 * noise(rng, size, size // 2)), cells.number)


def leather(rng: Rng, size: int) -> Texture:
    """Small rounded grains that differ little."""
    cells = _cells(rng, size, count=rng.uniform(14, 34), jitter=0.9, warp=rng.uniform(0, 0.1))
    tone = ramp(cells.border, 0, 0.5) + rng.uniform(0, 0.5) * noise(rng, size, 6)
    return Texture(unit(tone + _shades(rng, cells.number, 0.1)))


def cracked_ground(rng: Rng, size: int) -> Texture:
    """Plates of dried mud: here cracks are normal."""
    cells = _cells(rng, size, count=rng.uniform(4, 12), jitter=1, warp=rng.uniform(0.05, 0.15))
    plate = 0.7 + 0.1 * octaves(rng, size, 6) + 0.5 * (_shades(rng, cells.number, 0.2) - 0.5)
    return Texture(unit(plate * ramp(cells.border, 0.01, rng.uniform(0.06, 0.2))), cells.number)


def honeycomb(rng: Rng, size: int) -> Texture:
    """Regular six-sided cells."""
    cells = _cells(rng, size, count=rng.uniform(5, 22), jitter=rng.uniform(0, 0.08))
    wall = rng.uniform(0.1, 0.35)
    tone = ramp(cells.border, wall * 0.5, wall) * (1 - rng.uniform(0, 0.8) * cells.near)
    return Texture(unit(tone), np.where(cells.border > wall, cells.number, 0))


def terrazzo(rng: Rng, size: int) -> Texture:
    """Chips of a few tones in a plain ground."""
    cells = _cells(rng, size, count=rng.uniform(8, 30), jitter=1)
    chip = (rng.random(int(cells.number.max()) + 1) < rng.uniform(0.2, 0.7))[cells.number]
    chip = chip & (cells.border > rng.uniform(0.1, 0.3))
    tone = np.where(chip, _shades(rng, cells.number, 0.5), np.float32(rng.uniform(0, 1)))
    return Texture(np.clip(tone + 0.02 * noise(rng, size, size // 2), 0, 1).astype(np.float32))


def fabric(rng: Rng, size: int) -> Texture:
    """Threads over and under each other; plain or twill."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    bend = rng.uniform(0, 0.02)
    threads = rng.uniform(4, max(5, size / 9))
    v = (v + bend * noise(rng, size, 4) + 3) * np.float32(threads)
    u = (u + bend * noise(rng, size, 4) + 3) * np.float32(threads * rng.uniform(0.7, 1.4))
    period = int(pick(rng, 2, 2, 3, 4))
    over = (v.astype(np.int32) + u.astype(np.int32)) % period == 0
    across, along = np.sin(np.pi * (v % 1)), np.sin(np.pi * (u % 1))
    tone = np.where(over, along, across * np.float32(rng.uniform(0.4, 1)))
    return Texture(unit(tone + rng.uniform(0, 0.15) * noise(rng, size, size // 3)))


def knit(rng: Rng, size: int) -> Texture:
    """Rows of stitches shaped like a V."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    stitches = rng.uniform(6, 20)
    slant = np.abs((u * np.float32(stitches)) % 2 - 1)
    rows = np.sin(
        (v * np.float32(stitches) + slant * rng.uniform(0.6, 1.4)) * np.float32(2 * np.pi)
    )
    return Texture(unit(rows + 1.5 * np.sqrt(slant) + 0.1 * noise(rng, size, size // 3)))


def stripes(rng: Rng, size: int) -> Texture:
    """Parallel bands, sharp or soft, of one or two periods, straight or gently waving."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    wave = rng.uniform(0, 0.08) * np.sin(v * rng.uniform(1, 6)) if rng.random() < 0.4 else 0.0
    phase = (u + wave) * np.float32(np.pi * rng.uniform(3, 24))
    tone = np.sin(phase) + pick(rng, 0, 0.6) * np.sin(phase * np.float32(pick(rng, 0.5, 2, 3)))
    return Texture(unit(np.tanh(tone * np.float32(pick(rng, 0.3, 1, 6)))))


def mesh(rng: Rng, size: int) -> Texture:
    """Bars in two directions with holes between."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    count, thick = rng.uniform(3, 14), rng.uniform(0.15, 0.5)
    v, u = (v + 2) * np.float32(count), (u + 2 + pick(rng, 0, 0, 0.4) * v) * np.float32(count)
    hole = np.minimum(np.abs(v % 1 - 0.5), np.abs(u % 1 - 0.5))
    edge = np.abs(np.maximum(np.abs(v % 1 - 0.5), np.abs(u % 1 - 0.5)) - 0.5)
    bar = 1 - ramp(edge, thick * 0.35, thick * 0.5)
    number = v.astype(np.int32) * 256 + u.astype(np.int32) + 1
    tone = bar * (0.8 + 0.4 * hole) + 0.04 * octaves(rng, size, 8, count=2)
    return Texture(unit(tone), np.where(bar < 0.5, number, 0))


def dots(rng: Rng, size: int) -> Texture:
    """Discs on a lattice: printed dots, perforations or studs."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    count, radius = rng.uniform(3, 13), rng.uniform(0.15, 0.42)
    v, u = (v + 2) * np.float32(count), (u + 2) * np.float32(count)
    u = u + 0.5 * (np.floor(v) % 2) if rng.random() < 0.5 else u
    distance = np.hypot(v % 1 - 0.5, u % 1 - 0.5)
    disc = 1 - ramp(distance, radius - 0.06, radius + 0.02)
    number = v.astype(np.int32) * 256 + u.astype(np.int32) + 1
    dome = 1 - pick(rng, 0, 1) * distance / radius * 0.5
    ground = rng.uniform(0, 0.12) * octaves(rng, size, 5, count=3)
    return Texture(unit(disc * dome + ground), np.where(disc > 0.1, number, 0))


def tile(rng: Rng, size: int) -> Texture:
    """Rectangles with joints, in line or shifted row by row, seen straight or slightly tilted."""
    v, u = turned_grid(size, pick(rng, 0, np.pi / 2) + rng.normal(0, 0.15))
    tilt = 1 + rng.uniform(-0.25, 0.25) * v
    count, aspect = rng.uniform(2, 11), rng.uniform(1, 3.5)
    v, u = (v * tilt + 3) * np.float32(count), (u * tilt + 3) * np.float32(count / aspect)
    u = u + pick(rng, 0, 0.5, 0.33) * np.floor(v)
    number = v.astype(np.int32) * 256 + u.astype(np.int32) + 1
    v_edge, u_edge = 0.5 - np.abs(v % 1 - 0.5), (0.5 - np.abs(u % 1 - 0.5)) * np.float32(aspect)
    joint = rng.uniform(0.03, 0.13)
    body = ramp(np.minimum(v_edge, u_edge), joint * 0.5, joint)
    glaze = _shades(rng, number, rng.uniform(0, 0.3)) + rng.uniform(0, 0.08) * octaves(rng, size, 6)
    grout = pick(rng, 0, 0.2, 1)
    return Texture(
        np.clip(glaze * body + grout * (1 - body), 0, 1), np.where(body > 0.5, number, 0)
    )


def checker(rng: Rng, size: int) -> Texture:
    """A board of two alternating tones."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    count = rng.uniform(2, 12)
    v, u = (
        ((v + 3) * np.float32(count)).astype(np.int32),
        ((u + 3) * np.float32(count)).astype(np.int32),
    )
    tone = (v + u) % 2 + rng.uniform(0, 0.15) * octaves(rng, size, 8, count=3, gain=0.8)
    return Texture(unit(tone.astype(np.float32)), v * 256 + u + 1)


def wood(rng: Rng, size: int) -> Texture:
    """Growth rings cut at an angle, with fine grain along them."""
    v, u = turned_grid(
        size, rng.uniform(0, np.pi), (rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5))
    )
    radius = np.hypot(v * np.float32(rng.uniform(0.05, 0.5)), u)
    rings = radius * rng.uniform(15, 60) + rng.uniform(0.5, 2) * noise(rng, size, 3)
    grain = noise_at(rng, v * np.float32(3), u * np.float32(size / 3))
    return Texture(unit((np.sin(rings) * 0.5 + 0.5) ** 2 + rng.uniform(0.1, 0.4) * grain))


def brushed_metal(rng: Rng, size: int) -> Texture:
    """Fine parallel lines of random strength."""
    v, u = turned_grid(size, rng.uniform(0, np.pi))
    fine = noise_at(rng, v * np.float32(rng.uniform(0.5, 3)), u * np.float32(size / 2.5))
    coarse = noise_at(rng, v * np.float32(0.5), u * np.float32(rng.uniform(4, 12)))
    return Texture(unit(fine + rng.uniform(0.2, 1) * coarse))


def fibres(rng: Rng, size: int) -> Texture:
    """Short straws lying over each other, in every direction or mostly in one."""
    count, length = int(rng.integers(200, 500)), rng.uniform(0.08, 0.4)
    angle = rng.normal(rng.uniform(0, np.pi), pick(rng, 0.2, 0.6, 3), count)
    start = rng.uniform(-1.2, 1.2, (count, 2))
    end = start + np.stack([np.sin(angle), np.cos(angle)], axis=1) * length
    tones, width = rng.integers(60, 256, count), rng.uniform(1, 3) * size / 128
    ends = np.stack([start, end], axis=1)
    lines = ((pair, width, int(tone)) for pair, tone in zip(ends, tones, strict=True))
    return Texture(unit(draw_lines(size, lines) + 0.05 * noise(rng, size, size // 2)))


def print_rows(rng: Rng, size: int) -> Texture:
    """Rows of dark dashes on a light sheet, as of a page seen from afar."""
    y, x = grid(size)
    rows = rng.uniform(4, 14)
    v = (y + 1) * np.float32(rows)
    ink = noise_at(rng, np.floor(v) + 0.5, x * np.float32(rows * rng.uniform(2, 4)))
    line = 1 - ramp(np.abs(v % 1 - 0.5), 0.2, 0.3)
    tone = 1 - line * ramp(ink, -0.6, -0.3) + 0.02 * noise(rng, size, 9)
    return Texture(np.clip(tone, 0, 1))


TEXTURES: dict[str, Callable[[Rng, int], Texture]] = {
    "stone": stone,
    "concrete": stone,
    "sand": sand,
    "paper": paper,
    "marble": marble,
    "camouflage": spots,
    "cobblestone": cobbles,
    "leather": leather,
    "dry ground": cracked_ground,
    "honeycomb": honeycomb,
    "terrazzo": terrazzo,
    "fabric": fabric,
    "knitwear": knit,
    "striped sheet": stripes,
    "mesh": mesh,
    "perforated sheet": dots,
    "tile": tile,
    "checkered board": checker,
    "wood": wood,
    "brushed metal": brushed_metal,
    "straw": fibres,
    "printed page": print_rows,
}

IRREGULAR = frozenset(
    [
        "stone",
        "concrete",
        "sand",
        "paper",
        "marble",
        "camouflage",
        "cobblestone",
        "leather",
        "dry ground",
        "terrazzo",
        "straw",
    ]
)
"""Textures that look the same after a turn or a shift: such a defect would be invisible."""


def texture(rng: Rng, size: int, split: Split) -> tuple[str, Texture]:
    """Return a random texture of a split and its class name."""
    name = str(rng.choice(of_split(TEXTURES, split)))
    return name, TEXTURES[name](rng, size)


def colourise(rng: Rng, tone: np.ndarray) -> np.ndarray:
    """Give tones (R, R) in 0…1 random colours, grey in half of the cases: (R, R, 3) in 0…1."""
    low = rng.uniform(0, 0.45)
    light = np.array([low, low + rng.uniform(0.12, 0.55) * (1 - low), 0])
    light[2] = light[1] + rng.uniform(0.2, 1) * (1 - light[1])
    light = light[::-1] if rng.random() < 0.3 else light
    hue = rng.uniform(-1, 1, 3) * pick(rng, 0, 0, 0.15, 0.4)
    shift = rng.normal(0, 0.1, (3, 3)) * (np.abs(hue).max() > 0)
    stops = np.clip(light[:, None] * (1 + hue) + shift * 0.6, 0, 1)
    levels = np.linspace(0, 1, 256)
    table = np.stack([np.interp(levels, [0, 0.5, 1], stop) for stop in stops.T], axis=1)
    return np.asarray(table.astype(np.float32)[(tone * 255).astype(np.uint8)])
