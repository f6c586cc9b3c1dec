"""DICOM attributes as numbers and per frame; what is absent or makes no sense is None."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

_PER_FRAME = 0x52009230
_SHARED = 0x52009229
FUNCTIONAL_GROUPS = {_PER_FRAME, _SHARED}
"""Tags of the sequences that describe the frames of an enhanced object."""


def value_of(dataset: Dataset, keyword: str) -> object:
    """Return an attribute of the top level, None where it is absent.

    It is `Dataset.get` without its cost, which a series of a thousand files pays a thousand times:
    decimal strings come as the bytes they are stored as, for the functions below to parse.
    """
    element = dataset.get_item(_tag(keyword))
    if isinstance(element, RawDataElement) and element.value:
        if element.VR in {"DS", "IS"}:
            return element.value
        if element.VR == "US" and element.length == 2:
            return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
        if element.VR in {"CS", "UI"}:
            words = element.value.decode("ascii", "replace").split("\\")
            stripped = [word.strip(" \0") for word in words]
            return stripped if len(stripped) > 1 else stripped[0]
    return None if element is None else dataset[_tag(keyword)].value


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def is_enhanced(dataset: Dataset) -> bool:
    """Tell whether an object describes its frames one by one."""
    return _PER_FRAME in dataset


def frame_value(dataset: Dataset, frame: int, group: str, keyword: str) -> object:
    """Return an attribute of one frame: its own, else the shared one, else the object's.

    Args:
        dataset: A DICOM object.
        frame: The frame's index, from 0.
        group: Keyword of the functional group that holds the attribute in enhanced objects.
        keyword: The attribute.
    """
    for tag, index in ((_PER_FRAME, frame), (_SHARED, 0)):
        if tag in dataset.keys():  # noqa: SIM118 (`in dataset` converts the tag, at ten times the cost)
            for groups in dataset[tag].value[index : index + 1]:
                items = groups.get(group)
                if items and items[0].get(keyword) is not None:
                    return items[0].get(keyword)
    return value_of(dataset, keyword)


def private_value(dataset: Dataset, group: int, element: int, creator: str) -> object:
    """Return an attribute of a vendor's own, None if the dataset has no such block.

    Args:
        dataset: A DICOM object.
        group: The odd group number.
        element: The last two hexadecimal digits of the element number.
        creator: What the vendor calls the block.
    """
    try:
        return dataset.private_block(group, creator)[element].value
    except KeyError:
        return None


def numbers(value: object, count: int) -> np.ndarray | None:
    """Return an attribute as `count` finite numbers, None if it is anything else."""
    array = _array(value)
    return array if array.shape == (count,) and np.isfinite(array).all() else None


def first_number(value: object) -> float | None:
    """Return a number, or the first of several, None if there is none."""
    array = _array(value)
    return float(array[0]) if array.size and np.isfinite(array[0]) else None


def integer(value: object, default: int = 0) -> int:
    """Return an attribute's first value as a whole number, and `default` where it has none."""
    number = first_number(value)
    return default if number is None else int(number)


def _array(value: object) -> np.ndarray:
    """Return numbers as an array of one dimension, an empty one for what is no number.

    Decimal strings, and private attributes that the file does not say the type of, are bytes.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip(" \0").split("\\")
    try:
        return np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return np.empty(0)
