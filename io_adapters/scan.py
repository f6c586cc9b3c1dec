"""The contract between the rooms: what a scan is, where it is, and how it can fail.

A *scan* is one volume (a DICOM series, a NIfTI file) or one image. It is the unit of work, of
failure, of retry and of output. A *study* is the scans that share a study id.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np


class Kind(StrEnum):
    """What a scan is stored as; each kind has one reader."""

    DICOM = "dicom"
    NIFTI = "nifti"
    IMAGE = "image"


class Plane(StrEnum):
    """Which planes of a volume are its slices."""

    ACQUIRED = "acquired"
    """The plane the scanner measured; axial where the voxels do not tell."""
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    ALL = "all"
    """All three, one after the other; read as acquired."""


class Stage(StrEnum):
    """Where on its way a scan failed."""

    DISCOVER = "discover"
    READ = "read"
    SCORE = "score"
    WRITE = "write"
    SEND = "send"
    """It was scored, and its results did not reach a PACS."""


class ScanError(Exception):
    """An input that cannot become a result. The message is ours: it never quotes the file.

    Messages of parsers contain what they parsed, names of patients included, so they are never
    passed on. Say what is wrong and what a person can do about it.
    """


class UnreadableError(ScanError):
    """The bytes are broken: truncated, corrupt, or not what the file's name says."""


class UnsupportedError(ScanError):
    """A valid file whose content we do not handle, and do not guess at."""


class StorageError(ScanError):
    """A store refused or failed a request; the message names the bucket, never a credential."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRef:
    """One file or object, and what tells this version of it from the next without reading it."""

    uri: str
    size: int
    """Bytes; 0 for an instance of a PACS, which does not tell before it delivers."""
    version: str
    """ETag of an object, modification time of a local file, UID of an instance of a PACS."""
    modified: float | None = None
    """When it was last written, in seconds since the epoch; None where its store does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFrame:
    """The frame of a file that a slice comes from."""

    file: FileRef
    frame: int
    """From 1, as DICOM counts; the slices of a mosaic all come from its frame 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanRef:
    """Where a scan is and how to read it: it travels instead of pixels wherever that is cheaper."""

    kind: Kind
    uri: str
    """The file, or the folder that holds the series: what a person looks for."""
    files: tuple[FileRef, ...]
    scan_id: str
    """Unique in a run, stable between runs, safe as a file name, free of patient data."""
    study_id: str
    """Shared by the scans of a study; the same promises as `scan_id`."""
    label: str
    """What a report may show a person for this scan."""
    class_name: str | None = None
    """What the picture shows ("metal nut", "brain"), where the archive says it."""

    def to_json(self) -> str:
        """Return this as one JSON string, because nested columns do not survive Ray's blocks."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ScanRef:
        """Rebuild what `to_json` wrote."""
        fields = json.loads(text)
        files = tuple(FileRef(**file) for file in fields.pop("files"))
        return cls(**fields | {"kind": Kind(fields["kind"]), "files": files})


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A row of `failures.csv`: an input that did not become a result, and why."""

    uri: str
    stage: Stage
    error_class: str
    message: str
    scan_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Geometry:
    """The native voxel grid of a volume, and how its slices were cut from it.

    The native grid is the one results are written on: the array of a NIfTI file as stored, or
    for a DICOM series the array that dcm2niix makes of it (columns, rows bottom to top, slices).
    """

    affine: np.ndarray
    """(4, 4) float64: native voxel index (i, j, k, 1) to RAS millimetres."""
    shape: tuple[int, int, int]
    """The native grid (I, J, K)."""
    axes: tuple[int, int, int]
    """The native axis that became the slice, row and column axis."""
    flips: tuple[bool, bool, bool]
    """Whether slices, rows and columns run against their native axis."""
    volumes: int | None = None
    """Length T of a fourth native axis (time, echo, direction); None where there is none."""

    def __post_init__(self) -> None:
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must be (4, 4), is {self.affine.shape}")
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"axes must be a permutation of (0, 1, 2), is {self.axes}")

    def to_slices(self, native: np.ndarray) -> np.ndarray:
        """Cut a native array (I, J, K) or (I, J, K, T) into slices (S, H, W), volume after volume.

        S is T × the length of the slice axis.
        """
        moved = native if self.volumes is None else np.moveaxis(native, 3, 0)
        lead = moved.ndim - 3
        axes = (*range(lead), *(axis + lead for axis in self.axes))
        backwards = tuple(lead + n for n, flip in enumerate(self.flips) if flip)
        slices: np.ndarray = np.flip(moved.transpose(axes), backwards)
        return slices.reshape(-1, *slices.shape[-2:])

    def to_native(self, slices: np.ndarray) -> np.ndarray:
        """Put slices (S, H, W) back on the native grid: the inverse of `to_slices`."""
        _, height, width = slices.shape
        depth = self.shape[self.axes[0]]
        stacked = slices.reshape(-1, depth, height, width)
        backwards = tuple(1 + n for n, flip in enumerate(self.flips) if flip)
        unflipped: np.ndarray = np.flip(stacked, backwards)
        inverse = np.argsort(self.axes)
        native = unflipped.transpose(0, *(int(axis) + 1 for axis in inverse))
        return native[0] if self.volumes is None else np.moveaxis(native, 0, 3)

    def spacing(self) -> tuple[float, float, float]:
        """Return the distance between slices, rows and columns in millimetres."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        depth, row, column = (float(sizes[axis]) for axis in self.axes)
        return depth, row, column

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for JSON."""
        return {name: getattr(self, name) for name in ("shape", "axes", "flips", "volumes")} | {
            "affine": self.affine.tolist()
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Geometry:
        """Rebuild what `to_dict` wrote."""
        return cls(
            affine=np.asarray(fields["affine"], dtype=np.float64),
            shape=tuple(fields["shape"]),
            axes=tuple(fields["axes"]),
            flips=tuple(fields["flips"]),
            volumes=fields["volumes"],
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scan:
    """A scan in memory."""

    pixels: np.ndarray
    """(S, H, W) grey or (S, H, W, 3) RGB, in the file's own type, physical units after rescale."""
    window: tuple[float, float]
    """The pixel values that are shown as 0 and 255."""
    geometry: Geometry | None = None
    """None for an image, and for a series without positions."""
    invert: bool = False
    """Whether low values are bright (DICOM MONOCHROME1)."""
    modality: str | None = None
    """DICOM modality ("CT", "MR", …) or BIDS suffix, where it is known."""
    flags: tuple[str, ...] = ()
    """What a reader of the result should know about the input ("exif_rotated", "mono1", …)."""
    hounsfield: bool = False
    """Whether values are CT numbers, so that windows for them make sense."""
    sources: tuple[SourceFrame, ...] = ()
    """Of a DICOM series, where each slice of the acquired plane comes from."""

    def __post_init__(self) -> None:
        grey, colour = self.pixels.ndim == 3, self.pixels.ndim == 4 and self.pixels.shape[-1] == 3
        if not grey and not colour:
            raise ValueError(f"pixels must be (S, H, W) or (S, H, W, 3), are {self.pixels.shape}")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window must be (low, high) with low < high, is {self.window}")
