"""DICOM: the files of a series to one Scan.

The series is put together here and not by a library, because none of them tells a regular volume
from one with a gap, a tilt or two volumes in it; here what is irregular is flagged or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from io_adapters import planes, storage, windows
from io_adapters.dicom_frames import Instance, read_instance
from io_adapters.dicom_geometry import Arrangement, arrange
from io_adapters.dicom_volumes import Labels
from io_adapters.frame_block import FrameBlock
from io_adapters.scan import (
    FileRef,
    Plane,
    Scan,
    ScanRef,
    SourceFrame,
    UnreadableError,
    UnsupportedError,
)

_MAX_FILES = 20_000
_MAX_FILE_BYTES = 2 * 2**30
_MAX_SERIES_BYTES = 8 * 2**30


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Series:
    """What was read of a series, and the order in which its frames are slices."""

    instances: list[Instance]
    sources: list[SourceFrame]
    """One for each frame of the instances, as they come."""
    arrangement: Arrangement
    flags: tuple[str, ...]
    block: FrameBlock
    """Where the pixels of the instances are."""


def read_dicom(ref: ScanRef, plane: Plane) -> Scan:
    """Read a DICOM series into slices (S, H, W), or (S, H, W, 3) of colours.

    Slices ascend along their normal, rows and columns are as stored in the files. Values are
    physical (Hounsfield units for CT). Files that are broken, copies and slices that are there
    twice are left out, and a flag says how many.

    Args:
        ref: Where the files are.
        plane: Which planes of a volume become slices; what is no volume stays as acquired.

    Raises:
        UnreadableError: most files are missing, cut short or broken.
        UnsupportedError: the files do not make one stack of slices, or use an encoding that is
            not handled.
    """
    series = _load(ref)
    instances, order = series.instances, series.arrangement.order
    frames = [frame for instance in instances for frame in instance.pixels]
    pixels = series.block.join([frames[n] for n in order])
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)  # whole numbers in one slice, fractions in the next
    first = instances[0]
    scan = Scan(
        pixels=pixels,
        window=_window(first, pixels, _joined_padding(instances, order)),
        geometry=series.arrangement.geometry,
        invert=first.invert,
        modality=first.modality,
        flags=series.flags,
        hounsfield=first.hounsfield,
        sources=tuple(series.sources[n] for n in order),
    )
    return planes.recut(scan, plane)


def _load(ref: ScanRef) -> _Series:
    _check_limits(ref)
    block = FrameBlock(len(ref.files), _MAX_SERIES_BYTES)
    files, found = _read_instances(ref, block)
    files, copies = _unique(files)
    files.sort(key=lambda pair: pair[1].number)
    instances = [instance for _, instance in files]
    _check_alike(instances)
    arrangement = _arrange(instances)
    said = dict.fromkeys(flag for instance in instances for flag in instance.flags)
    return _Series(
        instances=instances,
        sources=[
            SourceFrame(file=file, frame=number)
            for file, instance in files
            for number in instance.numbers
        ],
        arrangement=arrangement,
        flags=(*found, *copies, *arrangement.flags, *said),
        block=block,
    )


def _check_limits(ref: ScanRef) -> None:
    sizes = [file.size for file in ref.files]
    if len(sizes) > _MAX_FILES or max(sizes) > _MAX_FILE_BYTES or sum(sizes) > _MAX_SERIES_BYTES:
        raise UnsupportedError(
            f"the series is too large: {len(sizes)} files, {sum(sizes)} bytes together"
        )


def _read_instances(
    ref: ScanRef, block: FrameBlock
) -> tuple[list[tuple[FileRef, Instance]], list[str]]:
    """Decode the files; those that are broken are left out as long as they are the fewer ones."""
    read: list[tuple[FileRef, Instance]] = []
    errors: list[UnreadableError] = []
    contents = storage.read_all(ref.files)
    decoded = 0
    for file, content in zip(ref.files, contents, strict=True):
        try:
            instance = read_instance(content)
        except UnreadableError as error:
            errors.append(error)
            continue
        read.append((file, replace(instance, pixels=block.keep(instance.pixels))))
        decoded += instance.pixels.nbytes
        if decoded > _MAX_SERIES_BYTES:
            raise UnsupportedError(f"the series is too large: over {decoded} bytes of pixels")
    if len(errors) == len(ref.files) == 1:
        raise errors[0]
    if len(errors) >= len(read):
        raise UnreadableError(
            f"{len(errors)} of the {len(ref.files)} files cannot be read; the first: {errors[0]}"
        )
    return read, [f"slice_lost_{len(errors)}"] if errors else []


def _unique(
    files: Sequence[tuple[FileRef, Instance]],
) -> tuple[list[tuple[FileRef, Instance]], list[str]]:
    """Drop copies of the same file; two different files of one name cannot both be right."""
    kept: dict[str, tuple[FileRef, Instance]] = {}
    for n, (file, instance) in enumerate(files):
        twin, _ = kept.setdefault(instance.uid or f"unnamed {n}", (file, instance))
        if twin is not file and storage.read_file(twin) != storage.read_file(file):
            raise UnsupportedError("two different files have the same SOP instance UID")
    copies = len(files) - len(kept)
    return list(kept.values()), [f"copies_dropped_{copies}"] if copies else []


def _check_alike(instances: list[Instance]) -> None:
    sizes = {instance.pixels.shape[1:] for instance in instances}
    if len(sizes) > 1:
        names = sorted("x".join(str(length) for length in size) for size in sizes)
        raise UnsupportedError(f"the series mixes images of different sizes: {', '.join(names)}")
    kinds = {(instance.invert, instance.modality, instance.hounsfield) for instance in instances}
    if len(kinds) > 1:
        raise UnsupportedError("the series mixes images of different kinds")


def _arrange(instances: Sequence[Instance]) -> Arrangement:
    """Put all frames in order; without positions they stay in that of their instance numbers."""
    placements = [place for instance in instances for place in instance.placements]
    known = [place for place in placements if place is not None]
    if len(known) == len(placements):
        return arrange(known, lambda: _labels(instances), *instances[0].pixels.shape[1:3])
    if known:
        raise UnsupportedError(f"{len(placements) - len(known)} frames do not say where they lie")
    count = len(placements)
    flags = ("no_geometry",) if count > 1 else ()
    return Arrangement(order=list(range(count)), geometry=None, flags=flags)


def _labels(instances: Sequence[Instance]) -> list[Labels]:
    return [label for instance in instances for label in instance.labels()]


def _joined_padding(instances: list[Instance], order: list[int]) -> np.ndarray | None:
    if all(instance.padding is None for instance in instances):
        return None
    masks = [
        np.zeros(instance.pixels.shape[:3], bool) if instance.padding is None else instance.padding
        for instance in instances
    ]
    return np.concatenate(masks)[order]


def _window(first: Instance, pixels: np.ndarray, padding: np.ndarray | None) -> tuple[float, float]:
    """Choose what becomes black and white: what readers of the modality are used to see."""
    if pixels.ndim == 4:
        return 0, 255
    if first.hounsfield:
        return windows.CT_BRAIN if first.head else windows.CT_SOFT_TISSUE
    if first.modality in {"MR", "PT", "NM"}:
        return windows.robust_window(pixels, padding)
    low, high = windows.full_window(pixels, padding)
    if first.window is not None and first.window[0] < high and first.window[1] > low:
        return first.window
    return (0, 255) if pixels.dtype == np.uint8 else (low, high)
