"""Where DICOM frames lie in the patient, and whether together they make a volume.

Only a regular grid becomes a geometry. A volume with one slice missing looks right and is wrong
by millimetres, so irregular slices stay a stack without geometry, with a flag that says why, and
what is no stack at all is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from io_adapters.scan import Geometry, UnsupportedError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_PLACE = 1e-3
"""Millimetres."""
_SAME_DIRECTION = 1e-3
"""Of a unit vector's components; scanners round in the fourth to sixth digit."""
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


def place_frames(dataset: Dataset, count: int) -> list[Placement | None]:
    """Return where each of an object's frames lies, None for a frame that does not say so.

    Args:
        dataset: A DICOM object, single-frame, enhanced multi-frame or dose grid.
        count: How many frames it has.
    """
    offsets = _numbers(dataset.get("GridFrameOffsetVector"), count)
    if offsets is not None and (first := _place(dataset, 0)) is not None:
        return [_shifted(first, offset - offsets[0]) for offset in offsets]
    if count > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return [None] * count  # one position for a film: it is a place, not a volume
    return [_place(dataset, frame) for frame in range(count)]


def frame_value(dataset: Dataset, frame: int, group: str, keyword: str) -> object:
    """Return an attribute of one frame: its own, else the shared one, else the object's.

    Args:
        dataset: A DICOM object.
        frame: The frame's index, from 0.
        group: Keyword of the functional group that holds the attribute in enhanced objects.
        keyword: The attribute.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        items = groups.get(group)
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return dataset.get(keyword)


def arrange(
    placements: Sequence[Placement], height: int, width: int
) -> tuple[list[int], Geometry | None, list[str]]:
    """Put frames in order along their normal and return (order, geometry, flags).

    The geometry's native grid is (columns, rows bottom to top, slices), as dcm2niix makes it; it
    is None where slices are missing, unevenly spaced or off a straight line. Where every place
    holds the same number of frames (times, echoes, directions) these become as many volumes, in
    the order in which they came.

    Args:
        placements: At least one.
        height: Rows of a frame.
        width: Columns of a frame.

    Raises:
        UnsupportedError: the frames are not parallel, or not equally many at each place.
    """
    _check_parallel(placements)
    first = placements[0]
    stacks = _stack_frames(np.array([place.position @ first.normal for place in placements]))
    positions = np.stack([place.position for place in placements])[stacks]
    step = first.normal * first.thickness
    if len(stacks) > 1:
        step = (positions[-1, 0] - positions[0, 0]) / (len(stacks) - 1)
    order, volumes = [int(n) for n in stacks.T.ravel()], stacks.shape[1]
    flags = ["4d"] if volumes > 1 else []
    irregular = _irregularity(positions, first.normal, step)
    if irregular:
        return order, None, [*flags, irregular]
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
    return order, geometry, flags


def _place(dataset: Dataset, frame: int) -> Placement | None:
    position = _numbers(
        frame_value(dataset, frame, "PlanePositionSequence", "ImagePositionPatient"), 3
    )
    orientation = _numbers(
        frame_value(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6
    )
    spacing = _numbers(frame_value(dataset, frame, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    along_row, along_column = orientation[:3], orientation[3:]
    frame_axes = np.stack([along_row, along_column])
    if not np.allclose(frame_axes @ frame_axes.T, np.eye(2), atol=1e-2):
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
        value = _numbers(frame_value(dataset, frame, "PixelMeasuresSequence", keyword), 1)
        if value is not None and value[0] > 0:
            return float(value[0])
    return 1.0


def _shifted(placement: Placement, offset: float) -> Placement:
    return Placement(
        position=placement.position + offset * placement.normal,
        along_row=placement.along_row,
        along_column=placement.along_column,
        spacing=placement.spacing,
        thickness=placement.thickness,
    )


def _numbers(value: object, count: int) -> np.ndarray | None:
    """Return an attribute as `count` finite numbers, None if it is anything else."""
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _check_parallel(placements: Sequence[Placement]) -> None:
    first = placements[0]
    axes = np.stack([(placement.along_row, placement.along_column) for placement in placements])
    if np.abs(axes - axes[0]).max() > _SAME_DIRECTION:
        raise UnsupportedError("the slices of the series have different orientations")
    if not np.allclose([placement.spacing for placement in placements], first.spacing, rtol=1e-3):
        raise UnsupportedError("the slices of the series have different pixel spacings")


def _stack_frames(depths: np.ndarray) -> np.ndarray:
    """Return frame indices (S, T): S places in ascending depth, the T frames of each as they came.

    Args:
        depths: (S·T,) millimetres along the normal.
    """
    order = np.argsort(depths, kind="stable")
    starts = np.flatnonzero(np.diff(depths[order]) > _SAME_PLACE) + 1
    stacks = [np.sort(stack) for stack in np.split(order, starts)]
    if len({len(stack) for stack in stacks}) > 1:
        raise UnsupportedError(
            f"{len(depths)} frames lie at {len(stacks)} places, not equally many at each: "
            "several volumes of which one is incomplete, or slices that are there twice"
        )
    return np.stack(stacks)


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
