"""Which images are learnt from, and which are held out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from labelled import save, write_labelled

from jobs.settings import ConfigError
from jobs.training.config import LabelledSet, TrainConfig
from jobs.training.lists import TrainingLists, read_lists
from zsad.detectors import Domain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("set") / "small")


def lists_of(folder: Path, **settings: object) -> TrainingLists:
    of_set = {name: settings.pop(name) for name in ("splits", "classes") if name in settings}
    chosen = LabelledSet(uri=str(folder), domain=Domain.INDUSTRIAL, **of_set)
    return read_lists(TrainConfig(data=(chosen,), output="/nowhere", **settings))


def groups(items: list) -> Counter:
    return Counter((item.class_name, item.anomalous) for item in items)


def test_the_same_share_of_each_class_and_label_is_held_out(folder: Path) -> None:
    lists = lists_of(folder, held_out=0.4)
    assert set(groups(lists.held_out).values()) == {2}
    assert set(groups(lists.training).values()) == {3}
    assert not {i.image for i in lists.training} & {i.image for i in lists.held_out}


def test_the_seed_alone_decides_the_split(folder: Path) -> None:
    first, again, other = (lists_of(folder, held_out=0.4, seed=seed) for seed in (1, 1, 2))
    assert first.held_out == again.held_out
    assert first.held_out != other.held_out


def test_nothing_held_out_if_nothing_is_asked_for(folder: Path) -> None:
    lists = lists_of(folder, held_out=0)
    assert lists.held_out == []
    assert len(lists.training) == 20


def test_a_small_class_is_held_out_neither_whole_nor_not_at_all(folder: Path) -> None:
    assert set(groups(lists_of(folder, held_out=0.99).training).values()) == {1}
    assert set(groups(lists_of(folder, held_out=0.01).held_out).values()) == {1}


def test_shots_are_so_many_of_each_class_and_label(folder: Path) -> None:
    lists = lists_of(folder, held_out=0.2, shots=2)
    assert set(groups(lists.training).values()) == {2}
    assert groups(lists.held_out) == groups(lists_of(folder, held_out=0.2).held_out)


def test_classes_can_be_chosen(folder: Path) -> None:
    assert lists_of(folder, classes=("leaf",)).class_names == ["leaf"]
    with pytest.raises(ConfigError, match=r"classes \['stone'\]: there are \['brick', 'leaf'\]"):
        lists_of(folder, classes=("stone",))


def test_splits_can_be_chosen(folder: Path) -> None:
    assert len(lists_of(folder, splits=("test",), held_out=0).training) == 20
    with pytest.raises(ConfigError, match="none of 20 images"):
        lists_of(folder, splits=("train",))


def test_provenance_does_not_depend_on_where_the_set_is(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "small")
    described = lists_of(moved).provenance
    assert described == lists_of(folder).provenance
    assert described[0]["images"] == 20
    assert str(tmp_path) not in json.dumps(described)


def test_a_held_out_set_of_its_own(folder: Path, tmp_path: Path) -> None:
    other = write_labelled(tmp_path / "other", classes=("stone",), images=4)
    held_out = (LabelledSet(uri=str(other), domain=Domain.MEDICAL),)
    lists = lists_of(folder, held_out=held_out)
    assert (len(lists.training), len(lists.held_out)) == (20, 4)
    assert lists.class_names == ["brick", "leaf"]
    assert [one["use"] for one in lists.provenance] == ["training", "held out"]


def test_held_out_images_are_not_trained_on(folder: Path) -> None:
    with pytest.raises(ConfigError, match="listed 2 times"):
        lists_of(folder, held_out=(LabelledSet(uri=str(folder), domain=Domain.INDUSTRIAL),))


def test_sets_without_mosaics_are_known_by_their_images(folder: Path, tmp_path: Path) -> None:
    other = write_labelled(tmp_path / "other", classes=("stone",), images=4)
    mixed, unmixed = (
        LabelledSet(uri=str(uri), domain=Domain.INDUSTRIAL, mosaic=uri is folder)
        for uri in (folder, other)
    )
    lists = read_lists(TrainConfig(data=(mixed, unmixed), output="/nowhere", held_out=0))
    named = {item.image for item in lists.training if item.class_name == "stone"}
    assert lists.unmixed == named
    assert len(named) == 4
    assert lists_of(folder).unmixed == frozenset()


def test_one_label_alone_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        picture = np.full((9, 9, 3), number, np.uint8)
        save(tmp_path / "brick" / "test" / "good" / f"{number}.png", picture)
    with pytest.raises(ConfigError, match="data: 3 normal and 0 anomalous"):
        lists_of(tmp_path, held_out=0)


def test_an_anomalous_image_without_a_mask_is_refused(folder: Path, tmp_path: Path) -> None:
    image = next(folder.glob("brick/test/spot/*.png"))
    listed = tmp_path / "list.jsonl"
    line = {"image_path": str(image.relative_to(folder)), "label": 1, "class_name": "brick"}
    listed.write_text(json.dumps(line))
    one = LabelledSet(uri=str(listed), root=str(folder), domain=Domain.INDUSTRIAL)
    with pytest.raises(ConfigError, match="anomalous without a mask"):
        read_lists(TrainConfig(data=(one,), output="/nowhere"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labelled image"):
        lists_of(tmp_path)
