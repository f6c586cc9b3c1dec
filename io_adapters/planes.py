"""Planes: which axis of a volume is sliced, and which way up a slice is shown.

Slices are shown as radiologists hang them: axial with the nose up, coronal and sagittal with the
head up, the patient's right on the left of the screen, and in sagittal slices the nose on the
left. In RAS millimetres this is one rule for all planes: rows and columns run against R, A and S,
slices run along it.
"""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np

from io_adapters.scan import Geometry, Plane, Scan, UnsupportedError

_WORLD_AXIS = {Plane.SAGITTAL: 0, Plane.CORONAL: 1, Plane.AXIAL: 2}
_AS_READ = (Plane.ACQUIRED, Plane.ALL)
_THICK = 1.5
"""An axis whose step is this much longer than both others is the one the scanner sliced."""
_NEARLY_ISOTROPIC = 3.0
"""Longest over shortest step of a volume that shows enough in planes it was not measured in."""


def cut(
    affine: np.ndarray, shape: tuple[int, int, int], plane: Plane
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return (axes, flips) of a `Geometry` that shows a volume in a plane.

    Slices follow the voxels: of an oblique volume they are the nearest planes of its grid, so
    that nothing is resampled. A volume one voxel thin is sliced across that axis whatever the
    plane, because its other cuts are lines.

    Args:
        affine: (4, 4) native voxel index to RAS millimetres.
        shape: Native grid (I, J, K).
        plane: Which plane is asked for.

    Raises:
        UnsupportedError: the affine is singular or not finite, so that planes have no meaning.
    """
    _check_invertible(affine)
    world, signs = nib.io_orientation(affine).astype(int).T
    depth = _slice_axis(affine, shape, plane, world)
    column, row = sorted((axis for axis in range(3) if axis != depth), key=lambda n: world[n])
    flips = (bool(signs[depth] < 0), bool(signs[row] > 0), bool(signs[column] > 0))
    return (depth, row, column), flips


def recut(scan: Scan, plane: Plane) -> Scan:
    """Return a scan cut in another plane; one without geometry, or as acquired, stays as it is.

    Raises:
        UnsupportedError: the scan's affine is degenerate.
    """
    if scan.geometry is None or plane in _AS_READ:
        return scan
    old = scan.geometry
    new = turned(old, plane)
    pixels = np.ascontiguousarray(regrid(scan.pixels, old, new))
    return dataclasses.replace(scan, pixels=pixels, geometry=new)


def turned(geometry: Geometry, plane: Plane) -> Geometry:
    """Return the geometry of the same volume cut in another plane.

    Raises:
        UnsupportedError: its affine is degenerate.
    """
    axes, flips = cut(geometry.affine, geometry.shape, plane)
    return dataclasses.replace(geometry, axes=axes, flips=flips)


def regrid(slices: np.ndarray, old: Geometry, new: Geometry) -> np.ndarray:
    """Cut slices (S, H, W) or (S, H, W, C) of a volume anew; where it can be, without a copy.

    Args:
        slices: As `old` cuts them.
        old: How they are cut.
        new: The same native grid, cut as wanted.
    """
    if slices.ndim == 3:
        return new.to_slices(old.to_native(slices))
    channels = [new.to_slices(old.to_native(slices[..., n])) for n in range(slices.shape[-1])]
    return channels[0][..., None] if len(channels) == 1 else np.stack(channels, axis=-1)


def three_planes(geometry: Geometry) -> dict[Plane, Geometry] | None:
    """Return how a volume is cut in each of the three planes; None where one alone makes sense.

    The plane that `geometry` has stays exactly as it is. A volume of one slice, or of slices far
    thicker than their pixels, shows nothing but stripes in the other planes.
    """
    steps = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    if min(geometry.shape) < 2 or steps.max() > _NEARLY_ISOTROPIC * steps.min():
        return None
    cuts = {plane: turned(geometry, plane) for plane in _WORLD_AXIS}
    return {
        plane: geometry if other.axes[0] == geometry.axes[0] else other
        for plane, other in cuts.items()
    }


def _check_invertible(affine: np.ndarray) -> None:
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        volume = np.linalg.det(affine[:3, :3] / steps)
    if not np.isfinite(affine).all() or not abs(volume) > 1e-6:
        raise UnsupportedError("the voxel grid is degenerate: its affine cannot be inverted")


def _slice_axis(
    affine: np.ndarray, shape: tuple[int, int, int], plane: Plane, world: np.ndarray
) -> int:
    thin = [axis for axis in range(3) if shape[axis] == 1]
    if len(thin) == 1:
        return thin[0]
    if plane in _AS_READ:
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        thick = int(np.argmax(steps))
        if steps[thick] >= _THICK * np.delete(steps, thick).max():
            return thick
    target = _WORLD_AXIS[Plane.AXIAL if plane in _AS_READ else plane]
    return int(np.flatnonzero(world == target)[0])
