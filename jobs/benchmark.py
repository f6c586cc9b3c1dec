"""Measure how fast this machine scores: a detector, the whole job, or the reading of DICOM.

    python jobs/benchmark.py --method aaclip --all --json numbers.json

Weights are random, pictures and scans are drawn, so nothing is downloaded. OMP_NUM_THREADS sets the
CPU threads of a detector. What is measured:

--method M alone       the detector in fp32 and bf16, batch by batch, against the published
                       algorithm in fp32, one picture at a time, each from the picture to the
                       anomaly map, in turn, so that others' use of the machine slows all of them.
                       Needs PyTorch and open_clip, and neither Ray nor what reads files
--method M --pipeline  the whole job on an archive of compressed DICOM series and NIfTI volumes,
                       from the files to committed results, against its detector alone;
                       `--checkpoint tiny` takes the embedded model
--method M --all       both
--scaling              the whole job on 1×, 4× and 16× as many scans: time and memory
--reading              a CT series in several encodings, against plain pydicom

In under a minute:

    python jobs/benchmark.py --method adaclip --architecture ViT-B-32 --image-size 224

Exit code: 0 measured, 1 it went wrong (numbers are not those of the plain implementation, scans
failed, the job broke off), 2 wrong usage.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.benchmarking.command_line import parse_config
from jobs.benchmarking.config import (
    BenchmarkConfig,
    Config,
    PipelineConfig,
    ReadingConfig,
    ScalingConfig,
)
from jobs.benchmarking.machine import describe_machine
from jobs.benchmarking.result import HEADLINES, MeasurementError, Result, cost_as_text, cost_of
from jobs.errors import ConfigError
from zsad.weight_files import WeightsError

MEASURED, WENT_WRONG, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse_config(given)
        result = measure(config)
        print(result.as_text())
        if result.rates:
            print(cost_as_text(result.rates, config.price_per_hour))
        if config.json:
            numbers = describe_run(config, given) | numbers_of(result, config)
            Path(config.json).write_text(json.dumps(numbers, indent=1) + "\n")
    except (ConfigError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except MeasurementError as error:
        print(f"error: {error}", file=sys.stderr)
        return WENT_WRONG
    if result.problem:
        print(f"error: {result.problem}", file=sys.stderr)
        return WENT_WRONG
    return MEASURED


def measure(config: Config) -> Result:
    """Run the benchmark that a configuration is of; each needs other packages."""
    # ruff: noqa: PLC0415
    if isinstance(config, BenchmarkConfig):
        from jobs.benchmarking.against_plain import compare

        return compare(config)
    if isinstance(config, ReadingConfig):
        from jobs.benchmarking.reading import compare_reading

        return compare_reading(config)
    if isinstance(config, ScalingConfig):
        from jobs.benchmarking.scaling import measure_scaling

        return measure_scaling(config)
    from jobs.benchmarking.pipeline import measure_pipeline

    if isinstance(config, PipelineConfig):
        return measure_pipeline(config)
    from jobs.benchmarking.both import measure_both

    return measure_both(config)


def numbers_of(result: Result, config: Config) -> dict[str, Any]:
    """Return everything that was measured, and null for the headlines that were not."""
    cost = cost_of(result.rates, config.price_per_hour)
    return dict.fromkeys(HEADLINES) | result.to_dict() | cost


def describe_run(config: Config, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what has to be known to repeat a measurement."""
    return {
        "command": f"python jobs/benchmark.py {shlex.join(arguments)}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": config.to_dict(),
        "machine": describe_machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
