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
_THICK = 1.5
"""An axis whose step is this much longer than both others is the one the scanner sliced."""


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
    if scan.geometry is None or plane is Plane.ACQUIRED:
        return scan
    old = scan.geometry
    axes, flips = cut(old.affine, old.shape, plane)
    new = dataclasses.replace(old, axes=axes, flips=flips)
    return dataclasses.replace(scan, pixels=_regrid(scan.pixels, old, new), geometry=new)


def _regrid(pixels: np.ndarray, old: Geometry, new: Geometry) -> np.ndarray:
    if pixels.ndim == 4:
        channels = [_regrid(pixels[..., n], old, new) for n in range(pixels.shape[-1])]
        return np.stack(channels, axis=-1)
    return np.ascontiguousarray(new.to_slices(old.to_native(pixels)))


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
    if plane is Plane.ACQUIRED:
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        thick = int(np.argmax(steps))
        if steps[thick] >= _THICK * np.delete(steps, thick).max():
            return thick
    target = _WORLD_AXIS[Plane.AXIAL if plane is Plane.ACQUIRED else plane]
    return int(np.flatnonzero(world == target)[0])
