"""A detector against a plain implementation of its method: how much faster, and equally right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from jobs.benchmarking.config import BenchmarkConfig
from jobs.benchmarking.differences import Difference
from jobs.benchmarking.machine import computes_in_bf16
from jobs.benchmarking.methods import METHODS
from jobs.benchmarking.pictures import Picture, draw_pictures
from jobs.benchmarking.timing import Times, interleave
from jobs.model import Model
from jobs.settings import ConfigError
from zsad.backbone import Backbone
from zsad.detectors import Domain

PLAIN, FP32, BF16 = "plain_fp32", "detector_fp32", "detector_bf16"
SEED = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured."""

    times: Mapping[str, Times]
    """Of `plain_fp32`, `detector_fp32` and, where the machine computes in it, `detector_bf16`."""
    differences: Sequence[Difference]

    @property
    def wrong(self) -> list[str]:
        """The kinds of number that the detector gets wrong."""
        return [difference.of for difference in self.differences if difference.is_too_large]

    def rate(self, name: str) -> float | None:
        """Return a variant's slices a second; None if it was not measured."""
        return 1 / self.times[name].median if name in self.times else None

    def ratio(self, name: str) -> float | None:
        """Return how many times as fast as the plain implementation a variant is."""
        return self.times[PLAIN].median / self.times[name].median if name in self.times else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            **{f"{name}_slices_per_s": self.rate(name) for name in (PLAIN, FP32, BF16)},
            "ratio_fp32_over_plain": self.ratio(FP32),
            "ratio_bf16_over_plain": self.ratio(BF16),
            "seconds_per_slice": {name: times.to_dict() for name, times in self.times.items()},
            "differences": [difference.to_dict() for difference in self.differences],
        }

    def as_text(self) -> str:
        """Return a table for a person."""
        lines = [f"{'':16}{'s/slice':>9}{'fastest':>9}{'slowest':>9}{'slices/s':>10}{'× plain':>9}"]
        for name, times in self.times.items():
            columns = (times.median, min(times.rounds), max(times.rounds))
            seconds = "".join(f"{value:9.3g}" for value in columns)
            lines.append(f"{name:16}{seconds}{1 / times.median:10.3g}{self.ratio(name):9.2f}")
        if BF16 not in self.times:
            lines.append("bf16: not measured, this machine does not compute in it")
        lines.append("largest difference of detector_fp32 from plain_fp32, of the numbers' reach:")
        return "\n".join([*lines, *(difference.as_text() for difference in self.differences)])


def compare(config: BenchmarkConfig) -> Comparison:
    """Measure speed and differences, telling how far it is.

    Raises:
        ConfigError: the method cannot run so.
    """
    method = METHODS[config.method]
    print("making a CLIP of random weights", flush=True)
    torch.manual_seed(SEED)
    try:
        backbone_config = replace(
            method.runs_on(), architecture=config.architecture, image_size=config.image_size
        )
        detector = method.build(Backbone(backbone_config))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    threads = torch.get_num_threads()
    models = {
        f"detector_{precision}": Model(detector, precision=precision, threads=threads)
        for precision in (("fp32", "bf16") if computes_in_bf16() else ("fp32",))
    }
    pictures = draw_pictures(config.batch_size, config.image_size)
    variants = {
        PLAIN: partial(_one_by_one, method.plain(detector), pictures),
        **{name: partial(_at_once, model, pictures) for name, model in models.items()},
    }
    print("comparing their numbers", flush=True)
    differences = method.differences(detector, pictures)
    times = interleave(variants, rounds=config.rounds, slices=len(pictures))
    return Comparison(times, differences)


def _one_by_one(plain: Callable[[np.ndarray, str], object], pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        plain(picture.pixels, picture.class_name)


def _at_once(model: Model, pictures: Sequence[Picture]) -> None:
    """Score a batch, and make anomaly maps of the size of the input, as the plain one does."""
    scores = model.score([p.pixels for p in pictures], [p.class_name for p in pictures])
    model.detector.render(scores.maps, (model.side, model.side), Domain.INDUSTRIAL)
