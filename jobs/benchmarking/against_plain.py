"""Measure a detector and the plain implementation of its method, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from jobs.benchmarking.batch_stages import measure_stages
from jobs.benchmarking.comparison import BF16, FP32, PLAIN, Comparison, precision_of
from jobs.benchmarking.config import BenchmarkConfig
from jobs.benchmarking.flops import count_flops, measure_matmul_peak
from jobs.benchmarking.machine import computes_in_bf16
from jobs.benchmarking.methods import METHODS
from jobs.benchmarking.models import model_of
from jobs.benchmarking.pictures import Picture, draw_pictures
from jobs.benchmarking.random_weights import random_detector
from jobs.benchmarking.timing import Times, Work, interleave
from jobs.model import Model
from zsad.detectors import Domain

Key = TypeVar("Key", str, int)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN_SLICES = 4
"""At most, of a round of the plain implementation, which takes them one by one anyway."""


def compare(config: BenchmarkConfig) -> Comparison:
    """Measure speed and differences, telling how far it is.

    Raises:
        ConfigError: the method cannot run so.
    """
    detector = random_detector(config.weights)
    pictures = draw_pictures(max(config.batch_sizes), config.weights.image_size)
    flops = count_flops(detector, pictures[0])
    models = _models(detector)
    detector.to(models[FP32].device)
    method, some = METHODS[config.weights.method], pictures[:PLAIN_SLICES]
    print("comparing their numbers", flush=True)
    differences = method.differences(detector, some)
    plain = Work(partial(_one_by_one, method.plain(detector), some), len(some))
    before = _measure_peaks(models)
    times = interleave(
        {PLAIN: plain, **_variants(models, pictures, config.batch_sizes)}, rounds=config.rounds
    )
    after = _measure_peaks(models)  # others may use less of the machine by now
    sizes = {
        name: {size: times[_sized(name, size)] for size in config.batch_sizes} for name in models
    }
    best = {name: _fastest(of_name) for name, of_name in sizes.items()}
    chosen = {name: sizes[name][size] for name, size in best.items()}
    fastest = _fastest(chosen)
    return Comparison(
        times={PLAIN: times[PLAIN], **chosen},
        differences=differences,
        sizes=sizes,
        flops=flops,
        peaks={name: max(peak, after[name]) for name, peak in before.items()},
        stages=measure_stages(
            models[fastest], *_slices(pictures[: best[fastest]]), rounds=config.rounds
        ),
    )


def _variants(
    models: Mapping[str, Model], pictures: Sequence[Picture], sizes: Sequence[int]
) -> dict[str, Work]:
    return {
        _sized(name, size): Work(partial(_at_once, model, pictures[:size]), size)
        for name, model in models.items()
        for size in sizes
    }


def _models(detector: Any) -> dict[str, Model]:
    """Return the variants of a detector that this machine computes as fast as it can."""
    names = (FP32, BF16) if computes_in_bf16() else (FP32,)
    return {name: model_of(detector, precision_of(name)) for name in names}


def _measure_peaks(models: Mapping[str, Model]) -> dict[str, float]:
    return {
        precision_of(name): measure_matmul_peak(DTYPES[precision_of(name)], model.device)
        for name, model in models.items()
    }


def _fastest(times: Mapping[Key, Times]) -> Key:
    return min(times, key=lambda key: times[key].median)


def _sized(name: str, size: int) -> str:
    return f"{name}, {size} at once"


def _one_by_one(plain: Callable[[np.ndarray, str], object], pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        plain(picture.pixels, picture.class_name)


def _at_once(model: Model, pictures: Sequence[Picture]) -> None:
    """Score a batch, and make anomaly maps of the size of the input, as the plain one does."""
    scores = model.score(*_slices(pictures))
    model.detector.render(scores.maps, (model.side, model.side), Domain.INDUSTRIAL)


def _slices(pictures: Sequence[Picture]) -> tuple[list[np.ndarray], list[str]]:
    """Return pictures as `Model.score` takes them."""
    return [picture.pixels for picture in pictures], [picture.class_name for picture in pictures]
