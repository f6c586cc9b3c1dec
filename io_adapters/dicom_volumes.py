"""Several DICOM frames at one place: times, echoes or directions of a volume, or a slice twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from io_adapters.dicom_attributes import FUNCTIONAL_GROUPS, first_number, frame_value, private_value
from io_adapters.dicom_header import image_type
from io_adapters.scan import UnsupportedError

Labels = dict[str, float | str]
"""What tells a frame from others at its place: names of `_SHARED` and `_GROWING`, and values."""

_NUMBERS = {
    "time": (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("FrameContentSequence", "TemporalPositionIdentifier"),
    ),
    "acquisition": (
        ("FrameContentSequence", "FrameAcquisitionNumber"),
        ("FrameContentSequence", "AcquisitionNumber"),
    ),
    "echo": (("MREchoSequence", "EffectiveEchoTime"), ("MREchoSequence", "EchoTime")),
    "b_value": (("MRDiffusionSequence", "DiffusionBValue"),),
    "flip": (("MRTimingAndRelatedParametersSequence", "FlipAngle"),),
    "trigger": (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("CardiacSynchronizationSequence", "TriggerTime"),
    ),
}
"""Where a number is that all frames of a volume may share; the first place that tells counts."""
_CLOCKS = {
    "acquired": (
        ("FrameContentSequence", "FrameAcquisitionDateTime"),
        ("FrameContentSequence", "AcquisitionTime"),
    ),
    "content": (("FrameContentSequence", "ContentTime"),),
}
"""Times of day, in the standard's notation that sorts as text."""
_SHARED = (*_NUMBERS, "image", "direction")
"""What all frames of a volume may share."""
_GROWING = ("trigger", *_CLOCKS)
"""What grows from volume to volume at each place, and may differ between places."""
_DIRECTION = ("DiffusionGradientDirectionSequence", "DiffusionGradientOrientation")
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
_SIEMENS_B_VALUE = (0x0019, 0x0C, "SIEMENS MR HEADER")
_GE_B_VALUE = (0x0043, 0x39, "GEMS_PARM_01")
_GE_B_VALUE_OFFSET = 100_000
"""GE adds multiples of 10⁹ to a b-value to say how it was set."""
_FEW = 0.2
"""Of the places: as many frames too many are slices sent twice, more are volumes."""

_KEYWORDS = [source[1] for told in (*_NUMBERS.values(), *_CLOCKS.values()) for source in told]
_TAGS = {tag_for_keyword(keyword) for keyword in (*_KEYWORDS, *_DIRECTION, "ImageType")}
_TAGS |= FUNCTIONAL_GROUPS
_TAGS |= {
    group << 16 | element
    for group, number, _ in (_SIEMENS_B_VALUE, _GE_B_VALUE)
    for block in range(0x10, 0x20)
    for element in (block, block << 8 | number)
}


def label_source(dataset: Dataset) -> Dataset:
    """Return the part of a header that `label_frames` reads, unparsed as it is.

    Most series need no labels, so they are made when it is known that they are needed.
    """
    part = Dataset()
    for tag in dataset.keys() & _TAGS:
        part[tag] = dataset.get_item(tag)
    return part


def label_frames(dataset: Dataset, count: int) -> list[Labels]:
    """Return what tells each of an object's frames from others at its place.

    Args:
        dataset: A DICOM object.
        count: How many frames it has.
    """
    return [dict(_labels(dataset, frame)) for frame in range(count)]


def stack_frames(
    places: Sequence[Sequence[int]], label: Callable[[], Sequence[Labels]]
) -> tuple[np.ndarray, list[str]]:
    """Return frames as (S, T) indices, place by place and volume by volume, and flags.

    Volumes are told apart by the first label that does so at every place, or the first two; else
    by times, and else they come as the frames do.

    Args:
        places: The frames at each place, in the order in which they came.
        label: Returns the labels of all frames; called if there is a choice to make.

    Raises:
        UnsupportedError: places hold different numbers of frames, and no label makes at least one
            whole volume of them.
    """
    counts = {len(place) for place in places}
    total = sum(len(place) for place in places)
    if counts == {1}:
        return np.array(places), []
    labels = label()
    if len(counts) == 1:
        stacks = _labelled(places, labels) or _timed(places, labels) or places
        return np.array(stacks), ["4d"]
    doubled = total - len(places)
    if doubled <= _FEW * len(places):
        return np.array([place[:1] for place in places]), [f"duplicates_{doubled}"]
    whole = _labelled(places, labels, partial=True)
    if whole is None:
        raise UnsupportedError(
            f"{total} frames lie at {len(places)} places, not equally many at each, and nothing "
            "in them tells volumes apart"
        )
    lost = total - sum(len(place) for place in whole)
    flags = ["4d"] if len(whole[0]) > 1 else []
    return np.array(whole), [*flags, f"slices_of_incomplete_volumes_dropped_{lost}"]


def _labels(dataset: Dataset, frame: int) -> Iterator[tuple[str, float | str]]:
    for name, sources in _NUMBERS.items():
        found = (first_number(frame_value(dataset, frame, *source)) for source in sources)
        number = next((number for number in found if number is not None), None)
        if number is None and name == "b_value":
            number = _private_b_value(dataset)
        if number is not None:
            yield name, number
    for name, sources in _CLOCKS.items():
        told = (frame_value(dataset, frame, *source) for source in sources)
        if clock := next((str(value) for value in told if value), None):
            yield name, clock
    yield "image", _frame_type(dataset, frame)
    yield "direction", _direction(dataset, frame)


def _private_b_value(dataset: Dataset) -> float | None:
    ge = first_number(private_value(dataset, *_GE_B_VALUE))
    if ge is not None:
        return ge % _GE_B_VALUE_OFFSET
    return first_number(private_value(dataset, *_SIEMENS_B_VALUE))


def _frame_type(dataset: Dataset, frame: int) -> str:
    told = (frame_value(dataset, frame, group, "FrameType") for group in _FRAME_TYPES)
    kinds = next((value for value in told if isinstance(value, Sequence)), image_type(dataset))
    return "\\".join(str(word) for word in kinds)


def _direction(dataset: Dataset, frame: int) -> str:
    """Return the direction of a diffusion gradient, empty where there is none."""
    sequence, orientation = _DIRECTION
    items = frame_value(dataset, frame, "MRDiffusionSequence", sequence)
    inner = items[0] if isinstance(items, Sequence) and len(items) else dataset
    return str(inner.get(orientation) or "")


def _labelled(
    places: Sequence[Sequence[int]], labels: Sequence[Labels], *, partial: bool = False
) -> list[list[int]] | None:
    """Return the frames of each place in the order of the labels that tell volumes apart.

    Args:
        places: The frames at each place.
        labels: One for every frame.
        partial: Whether volumes that are not at every place are left out, where some volume is.

    Returns:
        None if no label does.
    """
    for chosen in (*((name,) for name in _SHARED), *combinations(_SHARED, 2)):
        volumes = _volumes_by(chosen, places, labels)
        whole = [volume for volume in volumes if len(volume) == len(places)]
        if whole and (partial or len(whole) == len(volumes)):
            return [list(place) for place in zip(*whole, strict=True)]
    return None


def _volumes_by(
    chosen: Sequence[str], places: Sequence[Sequence[int]], labels: Sequence[Labels]
) -> list[list[int]]:
    """Return the frames of each value of the labels, place by place, in the order of the values.

    Returns:
        Nothing if a frame has no value, or a place two frames of one value.
    """
    volumes: dict[tuple[float | str, ...], list[int]] = {}
    for place in places:
        try:
            values = [tuple(labels[frame][name] for name in chosen) for frame in place]
        except KeyError:
            return []
        if len(set(values)) < len(values):
            return []
        for value, frame in zip(values, place, strict=True):
            volumes.setdefault(value, []).append(frame)
    return [volumes[value] for value in sorted(volumes)]


def _timed(places: Sequence[Sequence[int]], labels: Sequence[Labels]) -> list[list[int]] | None:
    """Return the frames of each place in the order of the first time that differs at all places."""
    for name in _GROWING:
        times = [[labels[frame].get(name) for frame in place] for place in places]
        if all(None not in at and len(set(at)) == len(at) for at in times):
            return [sorted(place, key=lambda frame: labels[frame][name]) for place in places]
    return None
