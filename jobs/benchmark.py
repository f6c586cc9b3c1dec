"""Measure a detector, or the reading of DICOM, against a plain implementation on this machine.

    python jobs/benchmark.py --method adaclip --json adaclip.json

Weights are random and pictures are drawn, so nothing is downloaded. What is compared is one picture
at a time by the published algorithm in fp32, and batches by our detector in fp32 and in bf16, each
from the picture to the anomaly map. Variants are timed in turn, so that others' use of the machine
slows all of them; OMP_NUM_THREADS sets the CPU threads. In under a minute:

    python jobs/benchmark.py --method adaclip --architecture ViT-B-32 --image-size 224

With --reading it is not a detector that is measured but the reading of a drawn CT series, in
several encodings, against `pydicom.dcmread` and `pixel_array` of its files:

    python jobs/benchmark.py --reading --json reading.json

Exit code: 0 measured, 1 the numbers are not those of the plain implementation,
2 wrong usage.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.benchmarking.against_plain import Comparison, compare
from jobs.benchmarking.config import BenchmarkConfig, ReadingConfig, parse_config
from jobs.benchmarking.machine import describe_machine
from jobs.benchmarking.reading import ReadingComparison, compare_reading
from jobs.settings import ConfigError

MEASURED, DISAGREES, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse_config(given)
        comparison = measure(config)
        print(comparison.as_text())
        if config.json:
            numbers = describe_run(config, given) | comparison.to_dict()
            Path(config.json).write_text(json.dumps(numbers, indent=1) + "\n")
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    if comparison.wrong:
        print(f"error: too large a difference: {', '.join(comparison.wrong)}", file=sys.stderr)
        return DISAGREES
    return MEASURED


def measure(config: BenchmarkConfig | ReadingConfig) -> Comparison | ReadingComparison:
    """Run the benchmark that a configuration is of."""
    return compare_reading(config) if isinstance(config, ReadingConfig) else compare(config)


def describe_run(
    config: BenchmarkConfig | ReadingConfig, arguments: Sequence[str]
) -> dict[str, Any]:
    """Return what has to be known to repeat a measurement."""
    return {
        "command": f"python jobs/benchmark.py {shlex.join(arguments)}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": config.to_dict(),
        "machine": describe_machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
