"""A run of the whole job: what was seen of it from outside, and what it left."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io_adapters.results import COMMIT
from jobs.benchmarking.observing import Observation, observe
from jobs.benchmarking.result import MeasurementError

JOB = Path(__file__).parents[1] / "score_dataset.py"
SCORED, SOME_FAILED = 0, 3
"""Exit codes of the job after which there are results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRun:
    """When the job did what, and how much memory it took."""

    began: float
    """Moments are of `time.time()`."""
    first_work: float
    """When the first worker, its model loaded, took the first scans to read or to score."""
    commits: tuple[tuple[float, int], ...]
    """When each scan was committed, in order, and how many of its slices were scored."""
    ended: float
    driver_bytes: int
    """Peaks of memory, see `Observation`."""
    worker_bytes: int
    failed: bool
    """Whether some scans have no result."""

    @property
    def scans(self) -> int:
        """How many have a result."""
        return len(self.commits)

    @property
    def slices(self) -> int:
        """How many were scored."""
        return sum(slices for _, slices in self.commits)

    @property
    def startup_s(self) -> float:
        """Seconds from the command to the first work."""
        return self.first_work - self.began

    @property
    def scoring_s(self) -> float:
        """Seconds from then to the last commit: of reading, scoring and writing."""
        return self.commits[-1][0] - self.first_work

    @property
    def finish_s(self) -> float:
        """Seconds from then to the end of the command: tables, report, the end of Ray."""
        return self.ended - self.commits[-1][0]

    @property
    def command_s(self) -> float:
        """Seconds of the whole command."""
        return self.ended - self.began

    @property
    def rate(self) -> float:
        """Slices a second, while the job scores."""
        return self.slices / self.scoring_s

    @property
    def later_rate(self) -> float | None:
        """The same from the first commit on, when work overlaps; None for a single scan."""
        (first, slices), (last, _) = self.commits[0], self.commits[-1]
        return (self.slices - slices) / (last - first) if last > first else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "scans": self.scans,
            "slices": self.slices,
            "startup_s": self.startup_s,
            "scoring_s": self.scoring_s,
            "finish_s": self.finish_s,
            "command_s": self.command_s,
            "driver_rss_mb": self.driver_bytes / 1e6,
            "worker_rss_mb": self.worker_bytes / 1e6,
        }


def run_job(arguments: Sequence[str], output: Path) -> JobRun:
    """Run `jobs/score_dataset.py` to its end, with a Ray of its own, and watch it.

    Args:
        arguments: of the job.
        output: the folder of its results.

    Raises:
        MeasurementError: it did not come to its end, or scored nothing.
    """
    command = [sys.executable, str(JOB), *arguments]
    seen = observe(command, os.environ | {"RAY_ADDRESS": "local"})
    if seen.exit_code not in (SCORED, SOME_FAILED):
        raise MeasurementError(f"the job ended with exit code {seen.exit_code}")
    commits = sorted(map(_commit_of, (output / "scans").glob(f"*/*/{COMMIT}")))
    if not commits:
        raise MeasurementError("the job scored nothing")
    return JobRun(
        began=seen.began,
        first_work=_first_work(seen),
        commits=tuple(commits),
        ended=seen.ended,
        driver_bytes=seen.driver_bytes,
        worker_bytes=seen.worker_bytes,
        failed=seen.exit_code == SOME_FAILED,
    )


def _commit_of(file: Path) -> tuple[float, int]:
    return file.stat().st_mtime, json.loads(file.read_text())["n_scored"]


def _first_work(seen: Observation) -> float:
    if seen.first_work is None:
        raise MeasurementError(
            "no worker was seen at work: Ray may give its processes other titles by now, see "
            "jobs/benchmarking/observing.py"
        )
    return seen.first_work
