"""Realistic damage for the sample archive: four kinds for images and a lesion for volumes.

These share no code with the defects that the demonstration model is trained on
(`blemishes.py`): the archive must show what the model makes of defects it has not seen.
Speed does not matter here, so shapes are computed from exact distances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, spatial

Damage = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""(H, W, 3) float in 0…1 in; the damaged picture and its (H, W) bool mask out."""


def scratch(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A gouge along a slightly bent line: bright bottom, one raised and shaded lip."""
    size = len(image)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.sin(angle), np.cos(angle)])
    middle = size * rng.uniform(0.4, 0.6, 2)
    t = np.linspace(-1, 1, 400)[:, None]
    bend = rng.uniform(0.04, 0.1) * size * (t**2 - 0.4) * along[::-1] * [1, -1]
    path = middle + t * along * size * rng.uniform(0.3, 0.38) + bend
    distance, nearest = _distance(path, size)
    # Tools bite unevenly: the width swells and fades towards both ends.
    swell = ndimage.gaussian_filter1d(rng.normal(size=len(t)), 12) * 3
    width = size * 0.014 * (1 + 0.4 * swell) * np.sqrt(1.02 - t[:, 0] ** 2)
    local = np.maximum(width[nearest], 0.4)
    bottom = _fall(distance / local, 0.7, 1.2)
    lip = _fall(np.abs(distance / local - 1.6), 0.2, 0.7) * _side(path, nearest, size)
    bare = 0.82 + 0.05 * rng.normal(size=(size, size, 1))
    damaged = image + (bare - image) * bottom[..., None] * 0.9
    return np.clip(damaged * (1 - 0.55 * lip[..., None]), 0, 1), (bottom > 0.3) | (lip > 0.3)


def stain(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dried liquid: darker and browner, darkest along its outline, structure showing through."""
    size = len(image)
    inside = _island(size, rng, radius=0.2 * size, roughness=0.3)
    depth = ndimage.distance_transform_edt(inside)
    cover = np.clip(depth / 3, 0, 1)
    tide = np.exp(-(((depth - 4) / 3.5) ** 2)) * inside
    density = cover * (0.55 + 0.12 * _clouds(size, rng, 12)) + 0.25 * tide
    absorbed = np.array([0.75, 0.95, 1.15]) * np.clip(density, 0, 0.95)[..., None]
    return np.clip(image * (1 - np.clip(absorbed, 0, 0.97)), 0, 1), inside


def missing_piece(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A chunk broken out: rough dull ground, the upper edge casting a shadow, the lower one lit."""
    size = len(image)
    centre = size * rng.uniform(0.38, 0.62, 2)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
    corners = centre + size * 0.16 * rng.uniform(0.65, 1.25, (11, 1)) * np.stack(
        [np.sin(angles), np.cos(angles)], axis=1
    )
    inside = _hull(corners, size) & (_clouds(size, rng, 3) > -1.6)
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(inside, iterations=2))
    grain = 0.05 * _clouds(size, rng, 2) + 0.05 * _clouds(size, rng, 8)
    ground = np.clip(0.42 + grain, 0, 1)[..., None] * np.array([1.0, 0.93, 0.85])
    shadow = (
        np.clip(
            1 - ndimage.distance_transform_edt(inside & np.roll(inside, (9, 6), (0, 1))) / 3, 0, 1
        )
        * inside
    )
    rim = ndimage.binary_dilation(inside, iterations=2) & ~inside
    lit = rim & np.roll(inside, (3, 3), (0, 1))
    damaged = np.where(inside[..., None], ground * (1 - 0.65 * shadow[..., None]), image)
    return np.clip(np.where(lit[..., None], damaged * 0.5 + 0.45, damaged), 0, 1), inside


def crack(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A fracture from edge to edge by midpoint displacement, with side branches; dark, uneven."""
    size = len(image)
    start, end = (
        np.array([0.05, rng.uniform(0.25, 0.75)]),
        np.array([0.95, rng.uniform(0.25, 0.75)]),
    )
    main = _fracture(start * size, end * size, rng, rough=0.2)
    branches = [
        _fracture(
            main[at], main[at] + size * rng.uniform([0.05, -0.3], [0.25, 0.3]), rng, rough=0.25
        )
        for at in rng.integers(len(main) // 6, len(main) - len(main) // 6, 4)
    ]
    trunk, _ = _distance(main, size)
    twigs, _ = _distance(np.concatenate(branches), size)
    width = size * (0.011 + 0.003 * _clouds(size, rng, 20))
    gap = np.maximum(_fall(trunk / width, 0.8, 1.3), _fall(twigs / (0.55 * width), 0.8, 1.3))
    lit = _fall(np.abs(trunk / width - 1.7), 0.1, 0.6) * 0.25
    damaged = image * (1 - 0.93 * gap[..., None]) + lit[..., None] * (1 - gap[..., None])
    return np.clip(damaged, 0, 1), gap > 0.3


def _pixels(size: int) -> np.ndarray:
    """Return the positions (row, column) of all pixels, (R, R, 2)."""
    return np.moveaxis(np.indices((size, size)), 0, -1)


def _distance(path: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's distance to a path (N, 2) and the nearest point's number, both (R, R)."""
    pixels = _pixels(size).reshape(-1, 2)
    distance, nearest = spatial.cKDTree(path).query(pixels)
    return distance.reshape(size, size), nearest.reshape(size, size)


def _side(path: np.ndarray, nearest: np.ndarray, size: int) -> np.ndarray:
    """Return True for pixels left of the path, (R, R)."""
    offset = _pixels(size) - path[nearest]
    heading = np.gradient(path, axis=0)[nearest]
    return np.asarray(heading[..., 0] * offset[..., 1] - heading[..., 1] * offset[..., 0] > 0)


def _fall(value: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return 1 below `start`, 0 above `end`, straight between."""
    return np.asarray(np.clip((end - value) / (end - start), 0, 1))


def _clouds(size: int, rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Return noise (R, R) of deviation 1 with features of `sigma` pixels."""
    blurred = ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma, mode="wrap")
    return np.asarray(blurred / blurred.std())


def _island(size: int, rng: np.random.Generator, *, radius: float, roughness: float) -> np.ndarray:
    """Return one connected ragged patch near the middle, (R, R) bool."""
    y, x = np.indices((size, size)) - size * rng.uniform(0.4, 0.6, (2, 1, 1))
    ragged = _clouds(size, rng, size / 14) + 0.35 * _clouds(size, rng, size / 50)
    patch = np.hypot(y, x * rng.uniform(0.7, 1.2)) / radius + roughness * ragged < 1
    labels, _ = ndimage.label(patch)
    largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
    return np.asarray(ndimage.binary_fill_holes(labels == largest))


def _hull(corners: np.ndarray, size: int) -> np.ndarray:
    """Return the pixels inside the convex hull of corners (N, 2), (R, R) bool."""
    pixels = _pixels(size)
    return np.asarray(spatial.Delaunay(corners).find_simplex(pixels) >= 0)


def _fracture(
    start: np.ndarray, end: np.ndarray, rng: np.random.Generator, *, rough: float
) -> np.ndarray:
    """Return a jagged path (257, 2): halve each segment and push its middle sideways."""
    path = np.stack([start, end])
    for _ in range(8):
        segment = np.diff(path, axis=0)
        sideways = segment[:, ::-1] * [1, -1] * rng.normal(0, rough, (len(segment), 1))
        middles = path[:-1] + segment / 2 + sideways
        longer = np.empty((2 * len(path) - 1, 2))
        longer[0::2], longer[1::2] = path, middles
        path = longer
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesion:
    """What a lesion looks like; brightness relative to the tissue around it."""

    radius: float
    """Millimetres from the centre to the outer edge of the rim."""
    core: float
    rim: float
    halo: float
    """Swollen tissue around the rim, up to 2.2 radii away."""


RING = Lesion(radius=15, core=0.38, rim=1.2, halo=0.68)
"""A dead centre, a bright ring of growth and swelling, as of a metastasis after contrast."""
BRIGHT = Lesion(radius=14, core=1.3, rim=0.5, halo=0.86)
"""A bright mass with a dark seam, as of an old bleeding."""


def add_lesion(
    volume: np.ndarray, affine: np.ndarray, lesion: Lesion, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put a lesion into the white matter of a brain.

    Args:
        volume: (I, J, K) T1-like brightness, 0 outside the brain.
        affine: (4, 4), voxel index to millimetres.
        lesion: Its look.
        rng: Decides on place and shape.

    Returns:
        The changed volume (I, J, K) float32, and the mask of core and rim (I, J, K) bool.
    """
    points = np.moveaxis(np.indices(volume.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    offset = points - _deep_white_matter(volume, points, lesion.radius, rng)
    stretch = rng.uniform(0.85, 1.2, 3)
    distance = np.linalg.norm(offset * stretch, axis=-1) / lesion.radius
    distance = distance + 0.16 * _lumps(offset, rng, 7.0) + 0.03 * _lumps(offset, rng, 4.0)
    tissue = float(np.median(volume[(distance < 1.3) & (volume > 0.3)]))
    mottled = 1 + 0.08 * _lumps(offset, rng, 3.5)
    core, rim = _fall(distance, 0.5, 0.82), _fall(distance, 0.88, 1.15)
    halo = _fall(distance, 1.1, 2.2) * np.clip(volume / tissue, 0, 1)
    changed = volume * (1 + (lesion.halo - 1) * halo)
    changed += rim * (tissue * lesion.rim * mottled - changed)
    changed += core * (tissue * lesion.core * mottled - changed)
    brain = volume > 0.1
    return np.where(brain, changed, volume).astype(np.float32), brain & (distance < 1)


def _deep_white_matter(
    volume: np.ndarray, points: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Choose a point (3,) in mm inside a hemisphere, above the temples, with room around it."""
    lateral, level = np.abs(points[..., 0]), points[..., 2]
    eligible = (volume > 0.8) & (lateral > 18) & (lateral < 38) & (level > 10) & (level < 45)
    inside = ndimage.distance_transform_edt(volume > 0.3, sampling=_steps(points))
    places = points[eligible & (inside > radius)]
    return np.asarray(places[rng.integers(len(places))])


def _steps(points: np.ndarray) -> tuple[float, float, float]:
    """Return the voxel size in mm along each axis of a grid of points (I, J, K, 3)."""
    first = points[0, 0, 0]
    neighbours = (points[1, 0, 0], points[0, 1, 0], points[0, 0, 1])
    i, j, k = (float(np.linalg.norm(neighbour - first)) for neighbour in neighbours)
    return i, j, k


def _lumps(offset: np.ndarray, rng: np.random.Generator, scale: float) -> np.ndarray:
    """Return smooth noise with features of `scale` mm at offsets (…, 3) in mm, deviation near 1.

    It is defined in millimetres, so that a lesion has the same shape on every voxel grid.
    """
    lattice = rng.normal(size=(24, 24, 24))
    places = np.moveaxis(offset / scale + 12, -1, 0)
    values = ndimage.map_coordinates(lattice, places, order=3, mode="grid-wrap")
    return np.asarray(1.6 * values)
