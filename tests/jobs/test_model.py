"""A model works through batches: in order, one thread computes, and memory may not suffice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
import torch
from brightness import Brightness, Whole, grey
from tiny import tiny_adaclip, tiny_detector
from torch import Tensor

from jobs.batches import SLICES_PER_CORE, NoMemoryError
from jobs.devices import Gpu, OnItsWay
from jobs.model import QUEUED, Model, Slices
from zsad.detectors import ClassText, Detector, PatchScores

PATIENCE_S = 30.0


def model_of(detector: object) -> Model:
    """Return a model on a device that computes whole batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.model.Cpu", Whole)
        return on_cpu(detector)


def on_cpu(detector: object, *, threads: int = 1, precision: str = "fp32") -> Model:
    return Model(detector, precision=precision, threads=threads, on_gpu=False)  # type: ignore[arg-type]


def batches_of(*batches: tuple[int, ...]) -> Iterator[Slices]:
    for values in batches:
        yield grey(*values), ["x"] * len(values)


def images_of(model: Model, batches: Iterator[Slices]) -> list[list[float]]:
    return [scores.image.tolist() for scores in model.score_batches(batches)]


def too_large(most: int, error: Exception) -> Callable[[Tensor], None]:
    """Return a detector's reaction to batches that have more slices than there is memory for."""

    def react(pixels: Tensor) -> None:
        if len(pixels) > most:
            raise error

    return react


def test_batches_are_scored_as_each_alone() -> None:
    model, random = model_of(tiny_detector()), np.random.default_rng(0)
    batches = [
        ([random.integers(0, 255, (9 + n, 20, 3), np.uint8) for n in range(size)], ["nut"] * size)
        for size in (3, 1, 4, 2, 2, 1)
    ]
    each = [model.score(*batch) for batch in batches]
    for alone, scores in zip(each, model.score_batches(batches), strict=True):
        assert torch.equal(scores.maps, alone.maps)
        assert torch.equal(scores.image, alone.image)


def test_slices_of_one_batch_may_be_of_several_classes_which_are_encoded_once() -> None:
    detector = Brightness()
    model = model_of(detector)
    for _ in range(2):
        assert model.score(grey(10, 20, 30), ["ab", "c", "ab"]).image.tolist() == [20, 20, 60]
    assert sorted(detector.encoded) == ["ab", "c"]


def test_the_next_batch_is_prepared_while_one_computes() -> None:
    asked = threading.Event()

    def batches() -> Iterator[Slices]:
        yield from batches_of((1,))
        asked.set()
        yield from batches_of((2,))

    model = model_of(Brightness(lambda _: asked.wait(PATIENCE_S) or pytest.fail("never asked")))
    assert images_of(model, batches()) == [[1], [2]]


def test_no_more_batches_are_asked_for_than_are_queued() -> None:
    asked = []

    def batches() -> Iterator[Slices]:
        for n in range(10):
            asked.append(n)
            yield from batches_of((n,))

    for done, _ in enumerate(model_of(Brightness()).score_batches(batches()), start=1):
        assert len(asked) <= done + QUEUED


def test_what_comes_before_an_error_is_scored_and_what_comes_after_it_is_not() -> None:
    def react(pixels: Tensor) -> None:
        if pixels.max() == 3:
            raise ValueError("three")

    detector = Brightness(react)
    model = model_of(detector)
    scored = model.score_batches(batches_of((1,), (2,), (3,), *[(4,)] * 20))
    assert [next(scored).image.item(), next(scored).image.item()] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(scored)
    assert len(detector.sizes) <= 3 + QUEUED
    assert images_of(model, batches_of((5,))) == [[5]]


def test_an_error_of_the_one_who_asks_leaves_the_model_to_others() -> None:
    def broken() -> Iterator[Slices]:
        yield from batches_of((1,))
        raise KeyError("no more")

    model = model_of(Brightness())
    with pytest.raises(KeyError):
        images_of(model, broken())
    assert images_of(model, batches_of((5,))) == [[5]]


def test_who_stops_reading_leaves_the_model_to_others() -> None:
    model = model_of(Brightness())
    with closing(model.score_batches(batches_of(*[(n,) for n in range(9)]))) as scored:
        next(scored)
    with ThreadPoolExecutor() as other:
        assert other.submit(images_of, model, batches_of((5,))).result(PATIENCE_S) == [[5]]


def test_batches_of_several_threads_are_not_mixed() -> None:
    order: list[float] = []
    model = model_of(Brightness(lambda pixels: order.append(pixels[0, 0, 0, 0].item())))
    together = threading.Barrier(3)

    def score(value: int) -> list[list[float]]:
        together.wait(PATIENCE_S)
        return images_of(model, batches_of(*[(value,)] * 20))

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(score, (1, 2, 3))) == [[[n]] * 20 for n in (1, 2, 3)]
    changes = [now for now, before in zip(order, [0, *order], strict=False) if now != before]
    assert sorted(changes) == [1, 2, 3]


def test_on_a_cpu_slices_are_scored_one_by_one_each_on_a_core_of_its_own() -> None:
    together = threading.Barrier(3)
    detector = Brightness(lambda _: together.wait(PATIENCE_S))
    threads_of_mine = torch.get_num_threads()
    model = on_cpu(detector, threads=3)
    assert images_of(model, batches_of((1, 2, 3), (4, 5, 6))) == [[1, 2, 3], [4, 5, 6]]
    assert detector.sizes == [1] * 6
    assert len({ident for ident, _ in detector.threads}) == 3
    assert {count for _, count in detector.threads} == {1}
    assert torch.get_num_threads() == threads_of_mine


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("make", [tiny_detector, tiny_adaclip])
def test_on_a_cpu_scores_are_the_same_to_the_last_bit_in_any_batch_on_any_number_of_cores(
    precision: str, make: Callable[[], torch.nn.Module]
) -> None:
    """Half black slices have many patches that are equal but for rounding; AdaCLIP picks some."""
    slices = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), np.uint8)
    slices[:, :, :24] = 0
    names = ["nut", "a thing with a very long name", "nut", "x", "nut", "nut", "y", "x"]
    whole = on_cpu(make(), precision=precision, threads=2).score(list(slices), names)
    rest = on_cpu(make(), precision=precision).score(list(slices[3:]), names[3:])
    assert torch.equal(whole.image[3:], rest.image)
    assert torch.equal(whole.maps[3:], rest.maps)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("none left")]
)
def test_a_batch_that_is_too_large_is_scored_in_parts_and_later_ones_are_not_tried_whole(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Brightness(too_large(3, error))
    model = model_of(detector)
    values = tuple(range(8))
    with caplog.at_level(logging.WARNING):
        assert images_of(model, batches_of(values, values)) == [list(values)] * 2
    assert detector.sizes == [8, 4, *[2] * 8]
    assert model.limit.most == 2
    assert len(caplog.messages) == 2


def test_too_little_memory_for_one_slice_is_an_error() -> None:
    model = model_of(Brightness(too_large(0, torch.OutOfMemoryError("CUDA out of memory"))))
    with pytest.raises(NoMemoryError):
        model.score(grey(1, 2), ["x", "x"])


def test_other_errors_of_a_detector_are_passed_on() -> None:
    detector = Brightness(too_large(1, RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        model_of(detector).score(grey(1, 2), ["x", "x"])
    assert detector.sizes == [2]


@pytest.mark.parametrize(("asked", "most"), [(None, 2 * SLICES_PER_CORE), (7, 7)])
def test_on_a_cpu_the_size_of_a_batch_is_known_and_nothing_is_run(
    asked: int | None, most: int
) -> None:
    detector = Brightness()
    model = on_cpu(detector, threads=2)
    model.settle(asked)
    assert model.limit.most == most
    assert detector.sizes == []


class DrawnGpu(Gpu):
    """A GPU with 10 bytes, of which a slice needs one; it computes on the CPU."""

    device = torch.device("cpu")

    def __init__(self, detector: Brightness) -> None:
        self.detector = detector

    def buffer(self, slices: int, side: int) -> Tensor:
        return torch.empty((slices, 3, side, side), dtype=torch.uint8)

    def copy_in(self, pixels: Tensor) -> Tensor:
        return pixels

    def run(self, detector: Detector, pixels: Tensor, texts: Sequence[ClassText]) -> PatchScores:
        return detector(pixels, texts)

    def copy_out(self, scores: PatchScores) -> OnItsWay:
        return OnItsWay(scores)

    def room(self) -> int:
        return 10

    def peak_of(self, work: Callable[[], object]) -> int:
        work()
        return self.detector.sizes[-1]


@pytest.mark.parametrize(
    ("asked", "has_room_for", "tried", "most"),
    [
        (None, 8, [1, 1, 2, 8], 8),
        (None, 7, [1, 1, 2, 8, 4, 4], 4),  # it needs more than was measured
        (None, 1, [1, 1, 2, 1, 1, 1], 1),
        (5, 8, [1, 5], 5),
        (5, 0, [1], 1),
    ],
)
def test_a_gpu_is_warmed_up_with_as_many_slices_as_it_has_memory_for(
    asked: int | None, has_room_for: int, tried: list[int], most: int
) -> None:
    detector = Brightness()
    detector.before = too_large(has_room_for, torch.OutOfMemoryError("CUDA out of memory"))
    model = model_of(detector)
    model.on = DrawnGpu(detector)
    model.settle(asked)
    assert detector.sizes == tried
    assert model.limit.most == most
