"""Batches: order, shares, augmentation, mosaics, and what is broken."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import write_labelled
from tiny import TINY_CLIP

from io_adapters.datasets import LabelledImage, read_labelled
from jobs.training.batches import (
    BrokenImageError,
    HeldOutPictures,
    Moment,
    Pictures,
    TrainingPicture,
    TrainingPictures,
    epoch_batches,
    load,
    partners,
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
        image, mask, anomalous, class_name = training[moment]
        item = pictures.items[moment.picture]
        assert torch.equal(batch.images[row], image)
        assert torch.equal(batch.masks[row], mask)
        assert batch.class_names[row] == class_name == item.class_name
        assert batch.labels[row] == anomalous == item.anomalous


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


STILL = Augmentation(turn=0, shift=0, jitter=0, mirror=False)
MOSAICS = replace(STILL, mosaic=1.0)
KINDS = {"brick good": 50, "brick bad": 100, "leaf good": 150, "leaf bad": 200}


def shades(counts: dict[str, int]) -> Pictures:
    """Return pictures of 8×8 pixels; the shade tells class and label, an anomalous one is it all.

    Args:
        counts: how many of each of `KINDS`.
    """
    made = Pictures([])
    made.items = [
        LabelledImage(
            image=f"{kind} {number}",
            mask=None,
            anomalous=kind.endswith("bad"),
            class_name=kind.split()[0],
            domain="industrial",
            split=None,
        )
        for kind, count in counts.items()
        for number in range(count)
    ]
    made._kept = [
        (
            np.full((8, 8, 3), KINDS[item.image.rpartition(" ")[0]], np.uint8),
            np.full((8, 8), item.anomalous),
        )
        for item in made.items
    ]
    return made


def quarters(picture: TrainingPicture) -> tuple[list[int], list[bool]]:
    """Return the shades and the truth in the middle of a picture's quarters."""
    at = [(12, 12), (12, 36), (36, 12), (36, 36)]
    shade = picture.image[0] * BACKBONE.std[0] + BACKBONE.mean[0]
    return (
        [round(shade[spot].item() * 255) for spot in at],
        [bool(picture.mask[spot]) for spot in at],
    )


def test_a_mosaic_shows_its_class_alone_and_is_anomalous_if_a_part_is() -> None:
    pictures = shades({"brick good": 8, "brick bad": 2, "leaf good": 9, "leaf bad": 1})
    training = TrainingPictures(pictures, BACKBONE, seed=0, reach=MOSAICS)
    seen = set()
    for number, item in enumerate(pictures.items):
        for epoch in range(3):
            made = training[Moment(0, epoch, number)]
            parts, truth = quarters(made)
            assert made.class_name == item.class_name
            assert set(parts) <= {KINDS[f"{item.class_name} {kind}"] for kind in ("good", "bad")}
            assert truth == [part % 100 == 0 for part in parts]
            assert made.anomalous == any(truth)
            seen.add((item.anomalous, made.anomalous))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_a_batch_takes_the_label_of_the_mosaic() -> None:
    pictures = shades({"brick good": 3, "brick bad": 1})  # any four of four show the bad one
    training = TrainingPictures(pictures, BACKBONE, seed=0, reach=MOSAICS)
    batch = next(iter(load(training, [[Moment(0, 0, n) for n in range(4)]], 0)))
    assert batch.labels.tolist() == [1, 1, 1, 1]
    assert batch.masks.mean((1, 2)).tolist() == [0.25] * 4
    assert batch.class_names == ["brick"] * 4


def test_a_class_of_one_picture_is_repeated() -> None:
    training = TrainingPictures(shades({"leaf bad": 1}), BACKBONE, seed=0, reach=MOSAICS)
    assert quarters(training[Moment(0, 0, 0)]) == ([200] * 4, [True] * 4)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_mosaic_is_made_as_its_moment_says_whoever_makes_it(
    pictures: Pictures, processes: int
) -> None:
    training = TrainingPictures(pictures, BACKBONE, seed=4, reach=Augmentation(mosaic=1))
    moments = [Moment(1, 2, number) for number in range(4)]
    batch = next(iter(load(training, [moments], processes)))
    for row, moment in enumerate(moments):
        made = training[moment]
        assert torch.equal(batch.images[row], made.image)
        assert batch.labels[row] == made.anomalous


def test_mosaics_differ_between_epochs(pictures: Pictures) -> None:
    training = TrainingPictures(pictures, BACKBONE, seed=4, reach=MOSAICS)
    made = {training[Moment(0, epoch, 0)].image.numpy().tobytes() for epoch in range(4)}
    assert len(made) == 4


def test_pictures_that_become_no_mosaic_look_as_if_there_were_none(pictures: Pictures) -> None:
    """The chance of a mosaic takes no draw from colours and movement."""
    plain, some = (
        TrainingPictures(pictures, BACKBONE, seed=4, reach=Augmentation(mosaic=chance))
        for chance in (0.0, 0.3)
    )
    moments = [Moment(0, 0, number) for number in range(len(pictures.items))]
    same = [torch.equal(plain[moment].image, some[moment].image) for moment in moments]
    assert 8 < sum(same) < 19


def test_unmixed_pictures_are_in_no_mosaic(pictures: Pictures) -> None:
    kinds = shades({"brick good": 6, "brick bad": 6})
    unmixed = frozenset(item.image for item in kinds.items if item.anomalous)
    training = TrainingPictures(kinds, BACKBONE, seed=0, reach=MOSAICS, unmixed=unmixed)
    for number, item in enumerate(kinds.items):
        assert quarters(training[Moment(0, 0, number)])[0] == [100 if item.anomalous else 50] * 4
    whole = TrainingPictures(
        pictures, BACKBONE, seed=4, reach=MOSAICS, unmixed={item.image for item in pictures.items}
    )
    plain = TrainingPictures(pictures, BACKBONE, seed=4, reach=STILL)
    assert torch.equal(whole[Moment(0, 0, 1)].image, plain[Moment(0, 0, 1)].image)


def test_partners_are_what_a_set_calls_a_class() -> None:
    """Two boards may go by the same words in prompts."""
    items = shades({"brick good": 3, "leaf good": 2, "brick bad": 2}).items
    items[2] = replace(items[2], category="brick2")
    items[6] = replace(items[6], domain="medical")
    assert partners(items, ()) == [[0, 1, 5], [0, 1, 5], [2], [3, 4], [3, 4], [0, 1, 5], [6]]
    assert partners(items, {"brick good 1"})[:3] == [[0, 5], [], [2]]


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    items = read_labelled(str(write_labelled(tmp_path, images=4)), domain="industrial")
    pictures = Pictures(items, cache_bytes=-1)
    path = Path(items[1].image)
    path.write_bytes(path.read_bytes()[:60])
    training = TrainingPictures(pictures, BACKBONE, seed=0, reach=MOSAICS)
    with pytest.raises(BrokenImageError, match=path.name):
        list(load(training, [[Moment(0, 0, 0)]], 0))
