"""The foreground of a volume: the box that holds all it shows.

A scan of a small head in a large field of view becomes a small head in the model's square. Cropped
to its box it fills the square. All slices of a volume have one box, so that they stay comparable.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from io_adapters.scan import Geometry

_VISIBLE = 25
"""Display value, of 255, above which a pixel shows something; the air of an MR scan stays below."""
_ENOUGH = 0.002
"""Of the pixels of a row, column or slice: how many have to be visible; noise has fewer."""
_MARGIN = 1 / 32
"""Of the box's sides, added around it."""


class Crop(StrEnum):
    """What of a scan is shown to the model."""

    NONE = "none"
    FOREGROUND = "foreground"


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A part of a stack of slices; of several volumes, the same part of each."""

    slices: tuple[int, int]
    """First, and the one after the last."""
    rows: tuple[int, int]
    columns: tuple[int, int]
    shape: tuple[int, int, int]
    """Slices of one volume, rows and columns of the whole."""

    def __post_init__(self) -> None:
        sides = (self.slices, self.rows, self.columns)
        for (first, end), length in zip(sides, self.shape, strict=True):
            if not 0 <= first < end <= length:
                raise ValueError(f"box {sides} does not lie within {self.shape}")

    def crop(self, stack: np.ndarray) -> np.ndarray:
        """Return the part of (S, H, W, …) that lies in the box."""
        parts = self._volumes(stack)[(slice(None), *self._part())]
        return parts.reshape(-1, *parts.shape[2:])

    def restore(self, part: np.ndarray, count: int) -> np.ndarray:
        """Return maps (S, H, W) of the whole stack, NaN outside the box; undoes `crop`.

        Args:
            part: Maps of the box.
            count: S.
        """
        whole = np.full((count, *self.shape[1:]), np.nan, part.dtype)
        depth = self.slices[1] - self.slices[0]
        volumes = self._volumes(whole)
        volumes[(slice(None), *self._part())] = part.reshape(-1, depth, *part.shape[1:])
        return whole

    def kept(self, count: int) -> list[int]:
        """Return which of `count` slices the box touches, in order."""
        indices = np.arange(count).reshape(-1, self.shape[0])
        return [int(n) for n in indices[:, slice(*self.slices)].ravel()]

    def geometry(self, whole: Geometry) -> Geometry:
        """Return the geometry of the part in the box; its voxels stay where they are."""
        start, shape = np.zeros(3), list(whole.shape)
        sides = (self.slices, self.rows, self.columns)
        for axis, flip, (first, end) in zip(whole.axes, whole.flips, sides, strict=True):
            start[axis] = whole.shape[axis] - end if flip else first
            shape[axis] = end - first
        affine = whole.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        i, j, k = shape
        return dataclasses.replace(whole, affine=affine, shape=(i, j, k))

    def to_dict(self) -> dict[str, list[int]]:
        """Return plain lists, for JSON."""
        return {name: list(sides) for name, sides in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, list[int]]) -> Box:
        """Rebuild what `to_dict` wrote."""
        return cls(**{name: tuple(sides) for name, sides in fields.items()})  # type: ignore[arg-type]

    def _part(self) -> tuple[slice, slice, slice]:
        return slice(*self.slices), slice(*self.rows), slice(*self.columns)

    def _volumes(self, stack: np.ndarray) -> np.ndarray:
        return stack.reshape(-1, self.shape[0], *stack.shape[1:])


def find_foreground(display: np.ndarray, volumes: int = 1) -> Box | None:
    """Return the box of what slices show, None where it is all of them or nothing.

    Args:
        display: uint8 (S, H, W, C).
        volumes: How many volumes the stack holds, one after the other.
    """
    depth, height, width = len(display) // volumes, *display.shape[1:3]
    rows = np.zeros((depth, height), np.int64)  # visible pixels of each row of each slice
    columns = np.zeros((depth, width), np.int64)
    for n, plane in enumerate(display):  # slice by slice: a mask of all would cost as much again
        visible = plane.max(axis=-1) > _VISIBLE
        rows[n % depth] += visible.sum(axis=1)
        columns[n % depth] += visible.sum(axis=0)
    sides = (rows.sum(axis=1), rows.sum(axis=0), columns.sum(axis=0))
    spans = [_span(side, display.size // display.shape[-1]) for side in sides]
    whole = (depth, height, width)
    if any(span is None for span in spans) or spans == [(0, length) for length in whole]:
        return None
    along_slices, along_rows, along_columns = (span for span in spans if span)
    return Box(slices=along_slices, rows=along_rows, columns=along_columns, shape=whole)


def _span(visible: np.ndarray, pixels: int) -> tuple[int, int] | None:
    """Return (first, end) of the places along an axis that show something, with a margin."""
    enough = max(1, _ENOUGH * pixels / len(visible))
    found = np.flatnonzero(visible >= enough)
    if not len(found):
        return None
    first, end = int(found[0]), int(found[-1]) + 1
    margin = round(_MARGIN * (end - first))
    return max(0, first - margin), min(len(visible), end + margin)
