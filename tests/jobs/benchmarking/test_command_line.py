"""Which benchmark a command line asks for, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.benchmarking.command_line import parse_config
from jobs.benchmarking.config import (
    AllConfig,
    BenchmarkConfig,
    PipelineConfig,
    RandomWeights,
    ReadingConfig,
    ScalingConfig,
)
from jobs.errors import ConfigError

AACLIP = ["--method", "aaclip"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (AACLIP, BenchmarkConfig(weights=RandomWeights(method="aaclip"))),
        (["--reading"], ReadingConfig()),
        (["--pipeline", "--checkpoint", "tiny"], PipelineConfig(checkpoint="tiny")),
        (
            ["--pipeline", *AACLIP, "--image-size", "224", "--batch-size", "2"],
            PipelineConfig(checkpoint=RandomWeights(method="aaclip", image_size=224), batch_size=2),
        ),
        (["--scaling"], ScalingConfig(checkpoint="tiny")),
        (
            ["--scaling", *AACLIP, "--scans", "3"],
            ScalingConfig(checkpoint=RandomWeights(method="aaclip"), scans=3),
        ),
        (
            ["--all", *AACLIP, "--rounds", "1", "--slices", "9", "--json", "x"],
            AllConfig(
                detector=BenchmarkConfig(
                    weights=RandomWeights(method="aaclip"), rounds=1, json="x"
                ),
                pipeline=PipelineConfig(
                    checkpoint=RandomWeights(method="aaclip"), slices=9, json="x"
                ),
            ),
        ),
    ],
)
def test_options_choose_the_benchmark(given: list[str], expected: object) -> None:
    assert parse_config(given) == expected


def test_a_batch_size_is_that_of_both() -> None:
    config = parse_config(["--all", *AACLIP, "--batch-size", "6"])
    assert isinstance(config, AllConfig)
    assert (config.detector.batch_sizes, config.pipeline.batch_size) == ((6,), 6)


def test_batch_sizes_are_a_list() -> None:
    config = parse_config([*AACLIP, "--batch-sizes", "1,4,16,64"])
    assert isinstance(config, BenchmarkConfig)
    assert config.batch_sizes == (1, 4, 16, 64)


def test_an_architecture_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "clip.json"
    file.write_text(json.dumps({"embed_dim": 8}))
    config = parse_config([*AACLIP, "--architecture", str(file)])
    assert isinstance(config, BenchmarkConfig)
    assert config.weights.architecture == {"embed_dim": 8}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "--method is missing: choose from aaclip, adaclip"),
        (["--all"], "--method is missing"),
        (["--method", "crane"], "--method crane: choose from aaclip, adaclip"),
        ([*AACLIP, "--slices", "3"], "--slices: this benchmark has no such setting"),
        ([*AACLIP, "--checkpoint", "tiny"], "--checkpoint: this benchmark has no such setting"),
        (["--pipeline", "--checkpoint", "tiny", "--rounds", "3"], "--rounds: this benchmark"),
        (["--pipeline", "--checkpoint", "tiny", "--image-size", "3"], "--image-size: this"),
        (["--pipeline", *AACLIP, "--checkpoint", "tiny"], "--checkpoint and --method exclude"),
        (["--pipeline"], "--pipeline: name a --method or a --checkpoint"),
        (["--pipeline", "--checkpoint", "no.st"], "--checkpoint no.st: no such file, nor one of"),
        (["--pipeline", *AACLIP, "--slices", "0"], "--slices 0: must be at least 1"),
        (["--pipeline", *AACLIP, "--scan-size", "0"], "--scan-size 0: must be at least 1"),
        (["--pipeline", *AACLIP, "--precision", "fp8"], "--precision fp8: choose from auto"),
        (["--pipeline", *AACLIP, "--bare-seconds", "0"], "--bare-seconds 0: must be more than 0"),
        (["--scaling", "--scans", "0"], "--scans 0: must be at least 1"),
        ([*AACLIP, "--price-per-hour", "-1"], "--price-per-hour -1: must not be negative"),
        ([*AACLIP, "--batch-sizes", "4,0"], "--batch-sizes 4,0: must be at least 1"),
    ],
)
def test_an_impossible_setting_is_told(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(given)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ["--reading", "--pipeline"],
        [*AACLIP, "--batch-size", "1", "--batch-sizes", "1,2"],
        [*AACLIP, "--batch-sizes", "one"],
    ],
)
def test_a_malformed_command_line_is_explained(given: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(given)
