"""Procedural defects with exact masks: a region, and what happens to the picture inside it.

Regions (where) and changes (what) are drawn independently, so that a few dozen small functions
give hundreds of kinds of defect. A model must not learn one of them; it must learn "this is not
like the rest of the picture".
"""

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
from scenes import MEDICAL, Scene
from scipy import ndimage
from textures import IRREGULAR, colourise, texture

VISIBLE = 0.06  # mean change of the strongest channel; less is a defect that nobody can see
VISIBLE_LESION = 0.2  # a small model has to begin with what is plain to see
SMALLEST, SMALLEST_LESION, LARGEST = 0.0008, 0.004, 0.3  # share of the picture

Region = Callable[[Rng, Scene], np.ndarray]
"""Where: returns (R, R) in 0…1, how much of each pixel the defect covers."""
Change = Callable[[Rng, Scene, np.ndarray], np.ndarray]
"""What: (R, R, 3) in, and its region; returns the changed picture (R, R, 3)."""


def add_defects(rng: Rng, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with one to three defects, (R, R, 3), and their exact mask, (R, R)."""
    image = scene.image
    mask = np.zeros(image.shape[:2], dtype=bool)
    for _ in range(int(pick(rng, 1, 1, 1, 2, 3))):
        image, new = _add_defect(rng, scene._replace(image=image))
        mask |= new
    return image, mask


def _add_defect(rng: Rng, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Try random defects until one is visible and of reasonable size; the last resort always is."""
    medical = scene.domain == MEDICAL
    smallest, visible = (SMALLEST_LESION, VISIBLE_LESION) if medical else (SMALLEST, VISIBLE)
    for _ in range(6):
        region, change = _draw_kind(rng, scene)
        cover = region(rng, scene) * scene.inside
        mask = cover > 0.4
        if not smallest < mask.mean() < LARGEST:
            continue
        image = _blend(scene.image, change(rng, scene, cover), cover)
        if np.abs(image[mask] - scene.image[mask]).max(axis=1).mean() > visible:
            return image, mask
    cover = draw_polygon(len(scene.image), _corners(rng, _centre(rng, scene), 0.15, 6))
    opposite = np.float32(scene.image[cover > 0.4].mean() < 0.5)
    image = _blend(scene.image, np.full_like(scene.image, opposite), cover)
    return image, cover > 0.4


def _draw_kind(rng: Rng, scene: Scene) -> tuple[Region, Change]:
    """Choose a region and a change that suit each other and the scene."""
    if scene.domain == MEDICAL and rng.random() < 0.8:
        regions: tuple[Region, ...] = (blob, blob, blob, specks)
        changes: tuple[Change, ...] = (lesion, lesion, lesion, lesion, shade, foreign)
    elif rng.random() < 0.3:
        regions, changes = (scratch, crack), (paint, shade, missing, groove)
    else:
        regions = (blob, blob, specks, piece, piece, element, element)
        changes = SURFACE_CHANGES
        if scene.class_name not in IRREGULAR:
            changes += STRUCTURE_CHANGES
    return regions[int(rng.integers(len(regions)))], changes[int(rng.integers(len(changes)))]


def _blend(image: np.ndarray, changed: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(image + (changed - image) * cover[..., None], 0, 1))


def _centre(rng: Rng, scene: Scene) -> tuple[float, float]:
    """Return a random place (y, x) in -1…1 where defects may be."""
    places = np.flatnonzero(scene.inside)
    place = int(places[rng.integers(len(places))]) if len(places) else scene.inside.size // 2
    row, column = divmod(place, len(scene.inside))
    return row * 2 / len(scene.inside) - 1, column * 2 / len(scene.inside) - 1


def _radius(rng: Rng, low: float = 0.05, high: float = 0.55) -> float:
    """Return a radius with every order of magnitude equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _corners(rng: Rng, centre: tuple[float, float], radius: float, count: int) -> np.ndarray:
    """Return the corners (count, 2) of an irregular polygon around `centre`."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    reach = radius * rng.uniform(0.6, 1.3, count)
    return np.stack([np.sin(angle) * reach, np.cos(angle) * reach], axis=1) + centre


# ---------------------------------------------------------------- where


def blob(rng: Rng, scene: Scene) -> np.ndarray:
    """An irregular patch with a soft or a sharp edge."""
    size, radius = len(scene.image), _radius(rng)
    v, u = turned_grid(size, rng.uniform(0, np.pi), _centre(rng, scene))
    stretch = rng.uniform(1, 2.5)
    distance = np.hypot(v * np.float32(stretch / radius), u / np.float32(radius))
    ragged = rng.uniform(0, 0.3) * octaves(rng, size, int(2 + 3 / radius), count=3)
    soft = rng.uniform(0.03, 0.4)
    return ramp(distance + ragged, 1 + soft, 1 - soft)


def specks(rng: Rng, scene: Scene) -> np.ndarray:
    """Many small spots in a loose group: rust, mould, calcification, dust."""
    size = len(scene.image)
    v, u = turned_grid(size, 0, _centre(rng, scene))
    group = ramp(np.hypot(v, u), _radius(rng, 0.15, 0.6), 0)
    level = rng.uniform(0.6, 1.4)
    return ramp(noise(rng, size, int(rng.integers(12, 40))) + 2.2 * group, level + 1.4, level + 1.8)


def piece(rng: Rng, scene: Scene) -> np.ndarray:
    """A polygon or a rectangle with sharp edges."""
    centre, radius = _centre(rng, scene), _radius(rng, 0.06, 0.5)
    if rng.random() < 0.5:
        return draw_polygon(
            len(scene.image), _corners(rng, centre, radius, int(rng.integers(4, 10)))
        )
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.2, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    box = np.array([[-flat, -1], [-flat, 1], [flat, 1], [flat, -1]]) * radius
    return draw_polygon(len(scene.image), box @ np.array([[cos, sin], [-sin, cos]]) + centre)


def element(rng: Rng, scene: Scene) -> np.ndarray:
    """One thing of a regular texture, or a few: a tile, a dot, a pebble."""
    if scene.elements is None:
        return piece(rng, scene)
    row, column = ((np.array(_centre(rng, scene)) + 1) / 2 * len(scene.image)).astype(int)
    reach = max(2, len(scene.image) // 8)
    nearby = scene.elements[row : row + reach, column : column + reach]
    numbers = np.unique(nearby[nearby > 0])[: int(rng.integers(1, 4))]
    return np.isin(scene.elements, numbers).astype(np.float32)


def scratch(rng: Rng, scene: Scene) -> np.ndarray:
    """One to three long thin curves, side by side."""
    size = len(scene.image)
    steps = int(rng.integers(8, 40))
    path = random_walk(rng, steps=steps, step=0.04, wander=rng.uniform(0, 0.12))
    path += _centre(rng, scene) - path[steps // 2]
    width = size / 128 * rng.uniform(1, 3.5)
    shifts = rng.normal(0, 0.06, (int(pick(rng, 1, 1, 2, 3)), 2))
    return draw_lines(size, ((path + shift, width, 255) for shift in shifts))


def crack(rng: Rng, scene: Scene) -> np.ndarray:
    """A jagged line with branches that get thinner."""
    size = len(scene.image)
    width = size / 128 * rng.uniform(1.5, 3.5)
    main = random_walk(rng, steps=int(rng.integers(10, 30)), step=0.05, wander=0.35)
    main += _centre(rng, scene) - main[len(main) // 2]
    lines = [(main, width, 255)]
    for start in rng.integers(0, len(main), int(rng.integers(0, 5))):
        twig = random_walk(rng, steps=int(rng.integers(4, 10)), step=0.04, wander=0.4)
        lines.append((twig + main[start], width * 0.6, 255))
    return draw_lines(size, lines)


# ---------------------------------------------------------------- what


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
    """Another material; on a scan a grey one."""
    patch = colourise(rng, texture(rng, len(cover))[1].tone)
    if scene.domain == MEDICAL:
        patch = np.repeat(patch.mean(axis=2, keepdims=True), 3, axis=2)
    return np.asarray(scene.image + rng.uniform(0.5, 1) * (patch - scene.image))


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


def lesion(rng: Rng, scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Tissue of another brightness, with grain, sometimes a rim or a bright or dark core."""
    size = len(cover)
    tissue = scene.image[::4, ::4][scene.inside[::4, ::4]]
    around = float(np.median(tissue)) if len(tissue) else 0.5
    level = np.clip(around + pick(rng, -1, 1) * rng.uniform(0.15, 0.55), 0.02, 1)
    tone = level + rng.uniform(0, 0.06) * octaves(rng, size, 16, count=2)
    tone = tone + rng.uniform(-0.4, 0.4) * (ramp(cover, 0.2, 0.6) - ramp(cover, 0.6, 0.98))
    if rng.random() < 0.3:
        core = ramp(ndimage.gaussian_filter(cover, size / 40), 0.75, 0.95)
        tone = tone + rng.uniform(-0.4, 0.4) * core
    opacity = rng.uniform(0.6, 1)
    return np.asarray(scene.image + opacity * (tone.astype(np.float32)[..., None] - scene.image))


SURFACE_CHANGES: tuple[Change, ...] = (
    paint,
    paint,
    shade,
    shade,
    missing,
    missing,
    hole,
    foreign,
    foreign,
    magnified,
    soften,
    smear,
    flatten,
    twisted,
    tinted,
)
STRUCTURE_CHANGES: tuple[Change, ...] = (turned, shifted)
