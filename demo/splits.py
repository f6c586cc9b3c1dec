"""What a model trains on, what its epoch is chosen on, and what it is tested on: kept apart.

A zero-shot detector must find kinds of defect that it has never seen, on things that it has never
seen. So classes (textures, objects) and kinds of defect or lesion belong to one split each.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Split(StrEnum):
    """The three uses of pictures."""

    TRAIN = "train"
    CHOOSE = "choose"
    TEST = "test"


_HELD_OUT = {
    Split.CHOOSE: (
        *("terrazzo", "brushed metal", "perforated sheet", "metal plate"),
        *("smear", "mould", "calcification"),
    ),
    Split.TEST: (
        *("marble", "cobblestone", "knitwear", "wood", "tile", "printed page"),
        *("gear", "capsule", "bracket"),
        *("crack", "contamination", "burn", "hole", "discolouration"),
        *("ring", "cavity", "oedema", "foci"),
    ),
}
_SPLIT_OF = {name: split for split, names in _HELD_OUT.items() for name in names}


def split_of(name: str) -> Split:
    """Return the split that a class or a kind of defect belongs to."""
    return _SPLIT_OF.get(name, Split.TRAIN)


def of_split(names: Iterable[str], split: Split) -> list[str]:
    """Return those of the names that belong to a split, in their order."""
    return [name for name in names if split_of(name) is split]
