"""DICOM: the files of a series to one Scan.

The series is put together here and not by a library, because none of them tells a regular volume
from one with a gap, a tilt or two volumes in it; here what is irregular is flagged or refused.
"""

from __future__ import annotations

import numpy as np

from io_adapters import planes, storage, windows
from io_adapters.dicom_frames import Instance, read_instance
from io_adapters.dicom_geometry import Placement, arrange
from io_adapters.prefetch import map_ordered
from io_adapters.scan import Geometry, Plane, Scan, ScanRef, UnreadableError, UnsupportedError

_MAX_FILES = 20_000
_MAX_FILE_BYTES = 2 * 2**30
_MAX_SERIES_BYTES = 8 * 2**30


def read_dicom(ref: ScanRef, plane: Plane) -> Scan:
    """Read a DICOM series into slices (S, H, W), or (S, H, W, 3) of colours.

    Slices ascend along their normal, rows and columns are as stored in the files. Values are
    physical (Hounsfield units for CT).

    Args:
        ref: Where the files are.
        plane: Which planes of a volume become slices; what is no volume stays as acquired.

    Raises:
        UnreadableError: a file is missing, cut short or broken.
        UnsupportedError: the files do not make one stack of slices, or use an encoding that is
            not handled.
    """
    _check_limits(ref)
    instances, flags = _unique(_read_instances(ref))
    instances, dropped = _without_localizers(instances)
    _check_alike(instances)
    instances.sort(key=lambda instance: instance.number)
    order, geometry, found = _order(instances)
    frames = [frame for instance in instances for frame in instance.pixels]
    pixels = np.stack([frames[n] for n in order])
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)  # whole numbers in one slice, fractions in the next
    padding = _joined_padding(instances, order)
    first = instances[0]
    scan = Scan(
        pixels=pixels,
        window=_window(first, pixels, padding),
        geometry=geometry,
        invert=first.invert,
        modality=first.modality,
        flags=(*flags, *dropped, *found, *(["mono1"] if first.invert else [])),
    )
    return planes.recut(scan, plane)


def _check_limits(ref: ScanRef) -> None:
    sizes = [file.size for file in ref.files]
    if len(sizes) > _MAX_FILES or max(sizes) > _MAX_FILE_BYTES or sum(sizes) > _MAX_SERIES_BYTES:
        raise UnsupportedError(
            f"the series is too large: {len(sizes)} files, {sum(sizes)} bytes together"
        )


def _read_instances(ref: ScanRef) -> list[Instance]:
    """Decode all files; the message counts the bad ones, for one bad file spoils a volume."""
    instances: list[Instance] = []
    errors: list[UnreadableError] = []
    uris = (file.uri for file in ref.files)
    decoded = 0
    for content in map_ordered(storage.read_bytes, uris, ahead=16):
        try:
            instances.append(read_instance(content))
        except UnreadableError as error:
            errors.append(error)
            continue
        decoded += instances[-1].pixels.nbytes
        if decoded > _MAX_SERIES_BYTES:
            raise UnsupportedError(f"the series is too large: over {decoded} bytes of pixels")
    if errors and len(ref.files) > 1:
        raise UnreadableError(
            f"{len(errors)} of the {len(ref.files)} files cannot be read; the first: {errors[0]}"
        )
    if errors:
        raise errors[0]
    return instances


def _unique(instances: list[Instance]) -> tuple[list[Instance], list[str]]:
    """Drop copies of the same file; two different files of one name cannot both be right."""
    kept: dict[str, Instance] = {}
    for n, instance in enumerate(instances):
        twin = kept.setdefault(instance.uid or f"unnamed {n}", instance)
        if twin.digest != instance.digest:
            raise UnsupportedError("two different files have the same SOP instance UID")
    copies = len(instances) - len(kept)
    return list(kept.values()), [f"copies_dropped_{copies}"] if copies else []


def _without_localizers(instances: list[Instance]) -> tuple[list[Instance], list[str]]:
    """Drop planning images from a series of others: they lie across it."""
    kept = [instance for instance in instances if not instance.localizer]
    dropped = len(instances) - len(kept)
    if not kept or not dropped:
        return instances, []
    return kept, [f"localizers_dropped_{dropped}"]


def _check_alike(instances: list[Instance]) -> None:
    sizes = {instance.pixels.shape[1:] for instance in instances}
    if len(sizes) > 1:
        names = sorted("x".join(str(length) for length in size) for size in sizes)
        raise UnsupportedError(f"the series mixes images of different sizes: {', '.join(names)}")
    kinds = {(instance.invert, instance.modality, instance.hounsfield) for instance in instances}
    if len(kinds) > 1:
        raise UnsupportedError("the series mixes images of different kinds")


def _order(instances: list[Instance]) -> tuple[list[int], Geometry | None, list[str]]:
    """Return the order of all frames, their common geometry, and flags.

    Without geometry frames stay in the order of their instance numbers.
    """
    placements = [place for instance in instances for place in instance.placements]
    known: list[Placement] = [place for place in placements if place is not None]
    if len(known) == len(placements):
        return arrange(known, *instances[0].pixels.shape[1:3])
    if known:
        raise UnsupportedError(f"{len(placements) - len(known)} frames do not say where they lie")
    count = len(placements)
    return list(range(count)), None, ["no_geometry"] if count > 1 else []


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
