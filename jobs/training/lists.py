"""Which images a training run learns from, and which it chooses its epoch by."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from io_adapters.datasets import DatasetError, LabelledImage, read_labelled
from io_adapters.storage import absolute
from jobs.settings import ConfigError
from jobs.training.config import LabelledSet, TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLists:
    """The images of a run."""

    training: list[LabelledImage]
    held_out: list[LabelledImage]
    """Empty: the last epoch is taken."""
    provenance: list[dict[str, Any]]
    """What the checkpoint says of each set: name, use, counts, digest of the list."""
    unmixed: frozenset[str]
    """URIs of the images of sets that stay out of mosaics."""

    @property
    def class_names(self) -> list[str]:
        """What a training batch can show, sorted."""
        return sorted({item.class_name for item in self.training})

    def lines(self) -> list[str]:
        """Describe the lists in lines for a person."""
        return [
            f"{title}: {len(items)} images of {len({i.class_name for i in items})} classes, "
            f"{sum(i.anomalous for i in items)} of them anomalous"
            for title, items in (("training", self.training), ("held out", self.held_out))
            if items
        ]


def read_lists(config: TrainConfig) -> TrainingLists:
    """List the sets, set the held-out part aside, and choose the shots.

    Raises:
        ConfigError: a set is broken, or what is left cannot be learnt from.
    """
    provenance: list[dict[str, Any]] = []
    sets = _read(config.data, "training", provenance)
    listed = list(chain(*sets))
    unmixed = [items for one, items in zip(config.data, sets, strict=True) if not one.mosaic]
    if isinstance(config.held_out, tuple):
        training = listed
        held_out = list(chain(*_read(config.held_out, "held out", provenance)))
    else:
        training, held_out = _split(listed, config.held_out, config.seed)
    if config.shots is not None:
        training = _shots(training, config.shots, config.seed)
    _check_labels(training, "data")
    if held_out:
        _check_labels(held_out, "held_out")
    _check_once([*training, *held_out])
    return TrainingLists(
        training=training,
        held_out=held_out,
        provenance=provenance,
        unmixed=frozenset(item.image for item in chain(*unmixed)),
    )


def digest_of_list(items: Iterable[LabelledImage], base: str = "") -> str:
    """Return the SHA-256, 64 hex digits, of what a list says; paths are taken from `base`."""
    rows = sorted(
        (
            item.image.removeprefix(base),
            (item.mask or "").removeprefix(base),
            item.anomalous,
            item.class_name,
            item.domain,
        )
        for item in items
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _read(
    sets: Sequence[LabelledSet], use: str, provenance: list[dict[str, Any]]
) -> list[list[LabelledImage]]:
    """List the images of each set, and add what they hold to `provenance`."""
    found: list[list[LabelledImage]] = []
    for one in sets:
        items = _read_set(one)
        base = one.root or (
            one.uri.rpartition("/")[0] if PurePosixPath(one.uri).suffix else one.uri
        )
        provenance.append(
            {
                "name": PurePosixPath(one.uri).name,  # a path says more than a stranger should know
                "use": use,
                "images": len(items),
                "anomalous": sum(item.anomalous for item in items),
                "classes": len({item.class_name for item in items}),
                "digest": digest_of_list(items, absolute(base)),
            }
        )
        found.append(items)
    return found


def _read_set(one: LabelledSet) -> list[LabelledImage]:
    try:
        items = read_labelled(
            one.uri, domain=one.domain.value, root=one.root, descriptions=one.descriptions
        )
    except (DatasetError, OSError) as error:
        raise ConfigError(f"data: {error}") from error
    names = {item.category or item.class_name for item in items}
    for setting, wanted in (("classes", one.classes or ()), ("descriptions", one.descriptions)):
        if unknown := sorted(set(wanted) - names - {item.class_name for item in items}):
            raise ConfigError(f"data: {one.uri}: {setting} {unknown}: there are {sorted(names)}")
    chosen = [
        item
        for item in items
        if (item.split is None or item.split in one.splits)
        and (one.classes is None or {item.category, item.class_name} & set(one.classes))
    ]
    if not chosen:
        raise ConfigError(f"data: {one.uri}: none of {len(items)} images is in {one.splits}")
    for item in chosen:
        if not item.has_pixel_labels:
            raise ConfigError(f"data: {item.image}: anomalous without a mask that says where")
    return chosen


def _groups(items: Sequence[LabelledImage]) -> list[list[LabelledImage]]:
    """Return the images of each class and label, all in an order that depends on names alone."""
    groups: dict[tuple[str, str, bool], list[LabelledImage]] = {}
    for item in sorted(items, key=lambda item: item.image):
        groups.setdefault((item.domain, item.class_name, item.anomalous), []).append(item)
    return [groups[key] for key in sorted(groups)]


def _split(
    items: list[LabelledImage], share: float, seed: int
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Set aside a share of each class and label: at least one image, and never all of them."""
    rng = np.random.default_rng([seed, 0])
    training, held_out = [], []
    for group in _groups(items):
        order = rng.permutation(len(group))
        aside = min(max(1, round(share * len(group))), len(group) - 1) if share else 0
        held_out += [group[at] for at in order[:aside]]
        training += [group[at] for at in sorted(order[aside:])]
    if share and not held_out:
        raise ConfigError(
            f"held_out {share}: no class has images enough; take more, or 0 for the last epoch"
        )
    return training, held_out


def _shots(items: list[LabelledImage], shots: int, seed: int) -> list[LabelledImage]:
    rng = np.random.default_rng([seed, 1])
    chosen = []
    for group in _groups(items):
        chosen += [group[at] for at in sorted(rng.permutation(len(group))[:shots])]
    return chosen


def _check_labels(items: list[LabelledImage], setting: str) -> None:
    counts = Counter(item.anomalous for item in items)
    if len(counts) < 2:
        raise ConfigError(
            f"{setting}: {counts[False]} normal and {counts[True]} anomalous images: "
            "both kinds are needed"
        )


def _check_once(items: list[LabelledImage]) -> None:
    image, count = Counter(item.image for item in items).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"data: {image} is listed {count} times: what the epoch is chosen by must not be "
            "trained on"
        )
