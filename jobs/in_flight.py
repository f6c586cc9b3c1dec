"""A decoded scan on its way through the stages, and the planes it is scored in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from io_adapters.foreground import Box
from io_adapters.planes import regrid, three_planes
from io_adapters.scan import Geometry, Plane, ScanRef
from zsad.detectors import Domain


@dataclass(kw_only=True, slots=True)
class View:
    """The slices of a scan in one plane, and what the detector said of them."""

    plane: str
    """The plane's name; "acquired" where it is the only one."""
    slices: np.ndarray
    """uint8 (S, H, W, C), without what is cropped away; shares memory with the scan's."""
    geometry: Geometry | None
    patch_maps: np.ndarray = field(init=False)
    """float32 (S, h, w); NaN for slices that show nothing."""
    image_scores: np.ndarray = field(init=False)
    """float32 (S,)."""

    def clear(self, grid: tuple[int, int]) -> None:
        """Make room for the scores of all slices, on a token grid (h, w)."""
        self.patch_maps = np.full((len(self.slices), *grid), np.nan, np.float32)
        self.image_scores = np.full(len(self.slices), np.nan, np.float32)


@dataclass(kw_only=True, slots=True)
class ScanInFlight:
    """A decoded scan and its views."""

    ref: ScanRef
    meta: dict[str, Any]
    """What `jobs.reading.read_row` says of the scan."""
    display: np.ndarray
    """uint8 (S, H, W, C): the scan as it is read."""
    views: list[View] = field(init=False)
    """The first one is cut like `display`; with plane "all" two others follow."""

    def __post_init__(self) -> None:
        slices, geometry = self.display, self.geometry
        if self.box is not None:
            slices = self.box.crop(slices)
            geometry = self.box.geometry(geometry) if geometry else None
        cuts = three_planes(geometry) if geometry and self.meta["plane"] == Plane.ALL else None
        if geometry is None or cuts is None:
            self.views = [View(plane=Plane.ACQUIRED.value, slices=slices, geometry=geometry)]
            return
        self.views = [
            View(plane=plane.value, slices=regrid(slices, geometry, cut), geometry=cut)
            for plane, cut in sorted(cuts.items(), key=lambda item: item[1] is not geometry)
        ]

    @property
    def patch_maps(self) -> np.ndarray:
        """Those of all views, one after the other, float32 (S, h, w)."""
        return np.concatenate([view.patch_maps for view in self.views])

    @property
    def image_scores(self) -> np.ndarray:
        """Those of all views, one after the other, float32 (S,)."""
        return np.concatenate([view.image_scores for view in self.views])

    def take_scores(self, patch_maps: np.ndarray, image_scores: np.ndarray) -> None:
        """Give the views what another process read from `patch_maps` and `image_scores`."""
        ends = np.cumsum([len(view.slices) for view in self.views])[:-1]
        maps, scores = np.split(patch_maps, ends), np.split(image_scores, ends)
        for view, its_maps, its_scores in zip(self.views, maps, scores, strict=True):
            view.patch_maps, view.image_scores = its_maps, its_scores

    @property
    def domain(self) -> Domain:
        """The domain the scan is scored in."""
        return Domain(self.meta["domain"])

    @property
    def geometry(self) -> Geometry | None:
        """How `display` is cut from the native grid."""
        return Geometry.from_dict(self.meta["geometry"]) if self.meta["geometry"] else None

    @property
    def box(self) -> Box | None:
        """The foreground, where the scan is cropped to it."""
        return Box.from_dict(self.meta["crop"]) if self.meta["crop"] else None

    def whole(self, maps: np.ndarray) -> np.ndarray:
        """Return maps of the first view's slices as maps of `display`, NaN in what was cropped."""
        return self.box.restore(maps, len(self.display)) if self.box else maps

    def whole_scores(self, scores: list[float | None]) -> list[float | None]:
        """Return scores of the first view's slices as scores of `display`'s."""
        if self.box is None:
            return scores
        found = dict(zip(self.box.kept(len(self.display)), scores, strict=True))
        return [found.get(n) for n in range(len(self.display))]


def fuse(maps: Iterable[np.ndarray], cuts: Iterable[Geometry | None]) -> np.ndarray:
    """Return the mean of maps of one volume in several planes, float32, cut like the first.

    Where a plane's slices show nothing, the mean is that of the others, and NaN without others.

    Args:
        maps: Of each plane (S, H, W), NaN where nothing was scored; taken one by one.
        cuts: How each plane is cut; None only where there is one plane alone.
    """
    pairs = zip(maps, cuts, strict=True)
    part, first = next(pairs)
    total = part.astype(np.float32)
    count = np.isfinite(total).astype(np.uint8)
    for part, cut in pairs:
        if first is None or cut is None:
            raise ValueError("maps without geometry cannot be fused")
        moved = regrid(part, cut, first)
        known = np.isfinite(moved)
        total[known & (count == 0)] = 0  # was NaN
        np.add(total, moved, out=total, where=known)
        count += known
    return np.divide(total, count, out=total, where=count > 1)
