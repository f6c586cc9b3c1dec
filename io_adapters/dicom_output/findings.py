"""What a detector found in a DICOM series: everything the objects are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydicom import Dataset


class DicomOutput(StrEnum):
    """The kinds of object that results can be written as."""

    SEG = "seg"
    """Segmentation: what exceeds the low mark of the heat."""
    SC = "sc"
    """Secondary captures: pictures of the worst slices under their heat."""
    PM = "pm"
    """Parametric map: the anomaly map itself."""
    SR = "sr"
    """Structured report: the scores, by TID 1500."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The frame of the series that a slice was read from."""

    header: Dataset
    """The object without its pixels, cleaned; shared by the frames of a multi-frame object."""
    frame: int
    """From 0."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Findings:
    """The result of a series, slice by slice as the scanner measured it."""

    sources: Sequence[Source]
    """Of the S slices."""
    display: np.ndarray
    """uint8 (S, H, W, C): what the model saw, rows and columns as stored in the files."""
    maps: np.ndarray
    """Anomaly maps on the same grid, float (S, H, W); NaN where nothing was scored."""
    heat: tuple[float, float]
    """Map values where heat begins and where it is full."""
    score: float
    """Of the scan."""
    slice_scores: Sequence[float | None] | None
    """Of the slices; None where slices of another plane were scored."""
    worst: Sequence[int]
    """The slices to show, worst first."""
    spacing: tuple[float, float]
    """Between rows and between columns in millimetres; (1, 1) where it is not known."""
    obstacle: str | None
    """Why the slices are not a volume that every reader places alike; None if they are."""
    method: str
    """Of the detector ("aaclip")."""
    model_digest: str
    seed: str
    """What the result depends on beside the series: equal seeds make equal UIDs."""

    def __post_init__(self) -> None:
        count = len(self.sources)
        if self.maps.shape != self.display.shape[:3] or len(self.maps) != count:
            raise ValueError(
                f"{count} sources, display {self.display.shape} and maps {self.maps.shape} differ"
            )
        if self.slice_scores is not None and len(self.slice_scores) != count:
            raise ValueError(f"{len(self.slice_scores)} slice scores for {count} slices")
        if not all(0 <= n < count for n in self.worst):
            raise ValueError(f"worst slices {list(self.worst)} are not all below {count}")

    @property
    def first(self) -> Dataset:
        """The header that patient and study are copied from."""
        return self.sources[0].header
