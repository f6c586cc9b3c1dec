"""Detector and job in one run, and the random weights that both have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import TINY_CLIP

from jobs.benchmark import numbers_of
from jobs.benchmarking import both
from jobs.benchmarking.batch_stages import BatchStages
from jobs.benchmarking.both import measure_both
from jobs.benchmarking.comparison import Comparison
from jobs.benchmarking.config import AllConfig, BenchmarkConfig, PipelineConfig, RandomWeights
from jobs.benchmarking.flops import Flops
from jobs.benchmarking.job_run import JobRun
from jobs.benchmarking.models import model_of
from jobs.benchmarking.pipeline import PipelineResult
from jobs.benchmarking.random_weights import random_detector, save_random_weights
from jobs.benchmarking.result import HEADLINES
from jobs.benchmarking.timing import Times
from zsad.detectors import load_detector

WEIGHTS = RandomWeights(method="adaclip", architecture=TINY_CLIP, image_size=48)
CONFIG = AllConfig(
    detector=BenchmarkConfig(weights=WEIGHTS, batch_sizes=(1, 16)),
    pipeline=PipelineConfig(checkpoint=WEIGHTS),
)
COMPARISON = Comparison(
    times={"plain_fp32": Times((1.0,)), "detector_fp32": Times((0.5,))},
    differences=[],
    sizes={"detector_fp32": {1: Times((0.6,)), 16: Times((0.5,))}},
    flops=Flops(all=1000, trunk=800),
    peaks={"fp32": 4000.0},
    stages=BatchStages(slices=16, seconds={"trunk": 4.0, "heads": 4.0}, device_bytes=None),
)
RUN = JobRun(
    began=0.0,
    first_work=10.0,
    commits=((20.0, 18),),
    ended=25.0,
    driver_bytes=400_000_000,
    worker_bytes=900_000_000,
    failed=False,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the two benchmarks, which do nothing, were asked for."""
    asked = SimpleNamespace()

    def measure_pipeline(config: PipelineConfig) -> PipelineResult:
        asked.pipeline = config
        return PipelineResult(run=RUN, detector=(1.9, 2.1))

    monkeypatch.setattr(both, "compare", lambda _: COMPARISON)
    monkeypatch.setattr(both, "measure_pipeline", measure_pipeline)
    return asked


def test_one_run_measures_every_headline(asked: SimpleNamespace) -> None:
    numbers = numbers_of(measure_both(CONFIG), CONFIG)
    unmeasured = {name for name in HEADLINES if numbers[name] is None}
    assert unmeasured == {"detector_bf16_slices_per_s", "ratio_bf16_over_plain"}
    assert numbers["ratio_fp32_over_plain"] == 2.0
    assert numbers["ratio_pipeline_over_detector"] == pytest.approx(0.9)
    assert numbers["machine_seconds_per_1000_slices"]["pipeline"] == pytest.approx(1000 / 1.8)


def test_the_job_gets_the_batch_size_that_was_fastest(asked: SimpleNamespace) -> None:
    measure_both(CONFIG)
    assert asked.pipeline == replace(CONFIG.pipeline, batch_size=16)


def test_a_problem_of_either_is_one_of_both(asked: SimpleNamespace) -> None:
    result = measure_both(CONFIG)
    assert result.problem is None
    failed = replace(result.pipeline, run=replace(RUN, failed=True))
    assert replace(result, pipeline=failed).problem == "scans failed"


def test_the_job_scores_with_the_same_random_weights(tmp_path: Path) -> None:
    file = tmp_path / "random.safetensors"
    save_random_weights(file, WEIGHTS)
    stored, _ = load_detector(file)
    expected = random_detector(WEIGHTS).state_dict()
    for name, tensor in stored.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_model_leaves_its_detector_as_it_is() -> None:
    detector = random_detector(WEIGHTS)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    model_of(detector, "bf16").detector.float().requires_grad_(True)
    assert all(torch.equal(t, before[name]) for name, t in detector.state_dict().items())
    assert not any(parameter.requires_grad for parameter in detector.parameters())
