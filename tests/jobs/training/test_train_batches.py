"""Batches: order, shares, augmentation, and what is broken."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import write_labelled
from tiny import TINY_CLIP

from io_adapters.datasets import read_labelled
from jobs.training.batches import (
    BrokenImageError,
    HeldOutPictures,
    Moment,
    Pictures,
    TrainingPictures,
    epoch_batches,
    load,
)
from zsad.backbone import BackboneConfig
from zsad.training.augment import Augmentation

BACKBONE = BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = write_labelled(tmp_path_factory.mktemp("set"))
    return Pictures(read_labelled(str(folder), domain="industrial"))


def steps_of(rank: int = 0, *, workers: int = 1, epoch: int = 0, count: int = 10, batch: int = 4):
    return epoch_batches(
        count, batch_size=batch, seed=0, stage=1, epoch=epoch, rank=rank, workers=workers
    )


def numbers(steps: list[list[Moment]]) -> list[int]:
    return [moment.picture for step in steps for moment in step]


def test_an_epoch_shows_each_picture_once_in_an_order_of_its_own() -> None:
    first, second = numbers(steps_of()), numbers(steps_of(epoch=1))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == numbers(steps_of())
    assert [len(step) for step in steps_of()] == [4, 4, 2]


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_each_batch_and_take_as_many_steps(workers: int) -> None:
    shares = [steps_of(rank, workers=workers) for rank in range(workers)]
    assert len({tuple(len(step) for step in share) for share in shares}) == 1
    assert set(numbers(list(chain(*shares)))) == set(range(10))
    together = [{m.picture for share in shares for m in share[at]} for at in range(2)]
    assert together == [set(numbers([step])) for step in steps_of()[:2]]


def test_few_pictures_for_many_workers_come_again() -> None:
    shares = [numbers(steps_of(rank, workers=4, count=1)) for rank in range(4)]
    assert shares == [[0]] * 4


@pytest.mark.parametrize("processes", [0, 2])
def test_a_picture_looks_as_its_moment_says_whoever_makes_it(
    pictures: Pictures, processes: int
) -> None:
    training = TrainingPictures(pictures, BACKBONE, seed=4, reach=Augmentation())
    moments = [Moment(1, 2, number) for number in range(4)]
    batch = next(iter(load(training, [moments], processes)))
    for row, moment in enumerate(moments):
        image, mask, item = training[moment]
        assert torch.equal(batch.images[row], image)
        assert torch.equal(batch.masks[row], mask)
        assert batch.class_names[row] == item.class_name
        assert batch.labels[row] == item.anomalous


def test_another_epoch_or_seed_moves_a_picture_otherwise(pictures: Pictures) -> None:
    training = TrainingPictures(pictures, BACKBONE, seed=4, reach=Augmentation())
    other = TrainingPictures(pictures, BACKBONE, seed=5, reach=Augmentation())
    made = [training[Moment(1, e, 0)][0] for e in range(4)] + [other[Moment(1, 0, 0)][0]]
    assert len({image.numpy().tobytes() for image in made}) > 3


def test_tensors_are_what_a_stage_expects(pictures: Pictures) -> None:
    training = TrainingPictures(pictures, BACKBONE, seed=0, reach=Augmentation(jitter=0))
    batch = next(iter(load(training, [[Moment(0, 0, n) for n in range(20)]], 0)))
    assert batch.images.shape == (20, 3, 48, 48)
    assert batch.images.dtype == batch.masks.dtype == torch.float32
    assert set(batch.masks.unique().tolist()) == {0.0, 1.0}
    assert not batch.masks[batch.labels == 0].any()


def test_held_out_pictures_are_left_as_they_are(pictures: Pictures) -> None:
    batch = next(iter(load(HeldOutPictures(pictures, 48), [[0, 19]], 0)))
    assert (batch.pixels.dtype, batch.masks.dtype) == (torch.uint8, torch.bool)
    bright = batch.pixels[:, 0] > 170
    found = (bright & batch.masks).sum((1, 2)) / batch.masks.sum((1, 2)).clamp(min=1)
    assert found.max() > 0.8  # the mask lies on the square


def test_the_cache_is_only_a_matter_of_time(pictures: Pictures) -> None:
    none = Pictures(pictures.items, cache_bytes=0)
    for number in (0, 7, 19):
        for kept, decoded in zip(pictures[number], none[number], strict=True):
            np.testing.assert_array_equal(kept, decoded)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("broken", ["image", "mask"])
def test_what_is_broken_is_named(tmp_path: Path, broken: str, processes: int) -> None:
    items = read_labelled(str(write_labelled(tmp_path)), domain="industrial")
    number = next(n for n, item in enumerate(items) if item.mask)
    path = Path(str(getattr(items[number], broken)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BrokenImageError, match=path.name):
        Pictures(items)
    late = Pictures(items, cache_bytes=-1) if number else Pictures(items[:0])
    late.items = items
    training = TrainingPictures(late, BACKBONE, seed=0, reach=Augmentation(jitter=0))
    with pytest.raises(BrokenImageError, match=path.name):
        list(load(training, [[Moment(0, 0, number)]], processes))
