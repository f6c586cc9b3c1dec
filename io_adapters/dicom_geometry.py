"""Where DICOM frames lie in the patient, and whether together they make a volume.

Only a regular grid becomes a geometry. A volume with one slice missing looks right and is wrong
by millimetres, so irregular slices stay a stack without geometry, with a flag that says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from io_adapters.dicom_attributes import frame_value, is_enhanced, numbers, value_of
from io_adapters.dicom_volumes import Labels, stack_frames
from io_adapters.scan import Geometry

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_PLACE = 1e-2
"""Of a slice's thickness, or of `_THICK`."""
_THICK = 5.0
"""Millimetres; slices said to be thicker may overlap."""
_SAME_DIRECTION = 1e-3
"""Of a unit vector's components; scanners round in the fourth to sixth digit."""
_SQUARE = 1e-2
"""Of the products of the unit vectors along rows and columns."""
_OFF_GRID = 0.05
"""Of the distance between slices: what a slice may be away from its place on a regular grid."""
_TILT_DEGREES = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Placement:
    """Where one frame lies, in DICOM's LPS millimetres."""

    position: np.ndarray
    """(3,) the centre of the first pixel."""
    along_row: np.ndarray
    """(3,) unit vector in which the column index grows."""
    along_column: np.ndarray
    """(3,) unit vector in which the row index grows."""
    spacing: tuple[float, float]
    """Distance between rows and between columns."""
    thickness: float
    """Distance to the next slice where there is no next slice to measure it."""

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the frame."""
        return np.cross(self.along_row, self.along_column)

    def is_parallel(self, other: Placement) -> bool:
        """Tell whether another frame's rows and columns run in the same directions as these."""
        apart = (self.along_row - other.along_row, self.along_column - other.along_column)
        return float(np.abs(apart).max()) <= _SAME_DIRECTION

    def shifted(self, offset: np.ndarray) -> Placement:
        """Return the same frame (3,) millimetres away."""
        return dataclasses.replace(self, position=self.position + offset)


def place_frames(dataset: Dataset, count: int) -> list[Placement | None]:
    """Return where each of an object's frames lies, None for a frame that does not say so.

    Args:
        dataset: A DICOM object, single-frame, enhanced multi-frame or dose grid.
        count: How many frames it has.
    """
    offsets = numbers(value_of(dataset, "GridFrameOffsetVector"), count)
    if offsets is not None and (first := _place(dataset, 0)) is not None:
        return [first.shifted((offset - offsets[0]) * first.normal) for offset in offsets]
    if count > 1 and not is_enhanced(dataset):
        return [None] * count  # one position for a film: it is a place, not a volume
    return [_place(dataset, frame) for frame in range(count)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arrangement:
    """Frames in the order in which they are slices, volume after volume."""

    order: list[int]
    """Indices of frames; of duplicates and incomplete volumes only what is kept."""
    geometry: Geometry | None
    """The native grid is (columns, rows bottom to top, slices), as dcm2niix makes it; None where
    slices are missing, unevenly spaced or off a straight line."""
    flags: tuple[str, ...]


def arrange(
    placements: Sequence[Placement],
    label: Callable[[], Sequence[Labels]],
    height: int,
    width: int,
) -> Arrangement:
    """Put frames in order along their normal.

    Where every place holds several frames (times, echoes, directions) these become as many
    volumes. Frames that are not parallel, or not of one pixel spacing, are put in order direction
    by direction and have no geometry.

    Args:
        placements: Where each frame lies; at least one.
        label: Returns what tells each frame from others at its place, if need be.
        height: Rows of a frame.
        width: Columns of a frame.

    Raises:
        UnsupportedError: the frames are not equally many at each place, for a reason that their
            labels do not tell.
    """
    first = placements[0]
    if flag := _disorder(placements):
        return Arrangement(order=_by_direction(placements), geometry=None, flags=(flag,))
    stacks, flags = stack_frames(_by_place(placements), label)
    positions = np.stack([place.position for place in placements])[stacks]
    step = first.normal * first.thickness
    if len(stacks) > 1:
        step = (positions[-1, 0] - positions[0, 0]) / (len(stacks) - 1)
    order, volumes = [int(n) for n in stacks.T.ravel()], stacks.shape[1]
    irregular = _irregularity(positions, first.normal, step)
    if irregular:
        return Arrangement(order=order, geometry=None, flags=(*flags, irregular))
    cosine = float(step @ first.normal / np.linalg.norm(step))
    if np.degrees(np.arccos(min(cosine, 1.0))) > _TILT_DEGREES:
        flags.append("tilt")
    geometry = Geometry(
        affine=_affine(first, positions[0, 0], step, height),
        shape=(width, height, len(stacks)),
        axes=(2, 1, 0),
        flips=(False, True, False),
        volumes=volumes if volumes > 1 else None,
    )
    return Arrangement(order=order, geometry=geometry, flags=tuple(flags))


def _place(dataset: Dataset, frame: int) -> Placement | None:
    position = numbers(
        frame_value(dataset, frame, "PlanePositionSequence", "ImagePositionPatient"), 3
    )
    orientation = numbers(
        frame_value(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6
    )
    spacing = numbers(frame_value(dataset, frame, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    along_row, along_column = orientation[:3], orientation[3:]
    frame_axes = orientation.reshape(2, 3)
    if np.abs(frame_axes @ frame_axes.T - np.eye(2)).max() > _SQUARE:
        return None
    return Placement(
        position=position,
        along_row=along_row / np.linalg.norm(along_row),
        along_column=along_column / np.linalg.norm(along_column),
        spacing=(float(spacing[0]), float(spacing[1])),
        thickness=_thickness(dataset, frame),
    )


def _thickness(dataset: Dataset, frame: int) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = numbers(frame_value(dataset, frame, "PixelMeasuresSequence", keyword), 1)
        if value is not None and value[0] > 0:
            return float(value[0])
    return 1.0


def _disorder(placements: Sequence[Placement]) -> str | None:
    """Return a flag for frames that are not parallel or not of one spacing, None if they are."""
    first = placements[0]
    axes = np.stack([(placement.along_row, placement.along_column) for placement in placements])
    if np.abs(axes - axes[0]).max() > _SAME_DIRECTION:
        return f"orientations_{len(_directions(placements))}"
    if not np.allclose([placement.spacing for placement in placements], first.spacing, rtol=1e-3):
        return "pixel_spacing_varies"
    return None


def _directions(placements: Sequence[Placement]) -> list[list[int]]:
    """Return the frames of each direction, directions in the order in which they are met."""
    groups: list[list[int]] = []
    for n, placement in enumerate(placements):
        for group in groups:
            if placement.is_parallel(placements[group[0]]):
                group.append(n)
                break
        else:
            groups.append([n])
    return groups


def _by_direction(placements: Sequence[Placement]) -> list[int]:
    """Return the frames direction by direction, each in ascending depth along its normal."""
    order: list[int] = []
    for group in _directions(placements):
        normal = placements[group[0]].normal
        order += sorted(group, key=lambda n: float(placements[n].position @ normal))
    return order


def _by_place(placements: Sequence[Placement]) -> list[list[int]]:
    """Return the frames at each place in the order given, places in ascending depth."""
    first = placements[0]
    depths = np.array([placement.position @ first.normal for placement in placements])
    tolerance = _SAME_PLACE * min(first.thickness, _THICK)
    order = np.argsort(depths, kind="stable")
    starts = np.flatnonzero(np.diff(depths[order]) > tolerance) + 1
    return [sorted(int(n) for n in place) for place in np.split(order, starts)]


def _irregularity(positions: np.ndarray, normal: np.ndarray, step: np.ndarray) -> str | None:
    """Return a flag for what keeps frame positions (S, T, 3) off a regular grid, None if nothing.

    Args:
        positions: Ascending along the normal.
        normal: (3,) across the slices.
        step: (3,) from one slice to the next, if they are regular.
    """
    gaps = np.diff(positions[:, 0] @ normal)
    if len(gaps) and gaps.max() - gaps.min() > 2 * _OFF_GRID * np.median(gaps):
        steps = gaps / np.median(gaps)
        missing = int(np.rint(steps).sum()) - len(gaps)
        if missing > 0 and np.abs(steps - np.rint(steps)).max() <= _OFF_GRID:
            return f"missing_slices_{missing}"
        return f"uneven_spacing_{gaps.min():.2f}..{gaps.max():.2f}mm"
    expected = positions[0, 0] + np.arange(len(positions))[:, None, None] * step
    distance = float(np.linalg.norm(positions - expected, axis=-1).max())
    if distance > _OFF_GRID * float(np.linalg.norm(step)):
        return f"off_grid_{distance:.2f}mm"
    return None


def _affine(first: Placement, origin: np.ndarray, step: np.ndarray, height: int) -> np.ndarray:
    """Return (4, 4) from native index (column, row from the bottom, slice) to RAS millimetres."""
    between_rows, between_columns = first.spacing
    down = first.along_column * between_rows
    lps = np.eye(4)
    lps[:3, 0] = first.along_row * between_columns
    lps[:3, 1] = -down
    lps[:3, 2] = step
    lps[:3, 3] = origin + down * (height - 1)
    return _LPS_TO_RAS @ lps
