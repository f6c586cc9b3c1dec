"""The whole job on archives of growing size: whether time grows as they do, and memory does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.benchmarking.config import ScalingConfig
from jobs.benchmarking.job_run import JobRun, run_job
from jobs.benchmarking.pipeline import prepare

FACTORS = (1, 4, 16)
"""How many times as many scans."""
Runner = Callable[[ScalingConfig, int], JobRun]
"""Takes the configuration and the number of scans."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What was measured."""

    runs: Sequence[JobRun]
    """One for each of `FACTORS`."""

    @property
    def problem(self) -> str | None:
        """Why the numbers are none."""
        return "scans failed" if any(run.failed for run in self.runs) else None

    @property
    def rates(self) -> dict[str, float]:
        """Slices a second, by archive."""
        return {f"{factor}x": run.rate for factor, run in zip(FACTORS, self.runs, strict=True)}

    @property
    def time_ratios(self) -> list[float]:
        """How many times as long a scan takes as in the smallest archive; 1 is linear."""
        each = [run.scoring_s / run.scans for run in self.runs]
        return [seconds / each[0] for seconds in each]

    @property
    def memory_ratios(self) -> list[float]:
        """How many times as much memory the driver needs; 1 is flat."""
        return [run.driver_bytes / self.runs[0].driver_bytes for run in self.runs]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "runs": {
                f"{factor}x": run.to_dict()
                | {
                    "seconds_per_scan": run.scoring_s / run.scans,
                    "ratio_seconds_per_scan": time,
                    "ratio_driver_rss": memory,
                }
                for factor, run, time, memory in zip(
                    FACTORS, self.runs, self.time_ratios, self.memory_ratios, strict=True
                )
            },
            "ratio_seconds_per_scan_16x_over_1x": self.time_ratios[-1],
            "ratio_driver_rss_16x_over_1x": self.memory_ratios[-1],
            "driver_rss_mb": self.runs[-1].driver_bytes / 1e6,
            "worker_rss_mb": self.runs[-1].worker_bytes / 1e6,
        }

    def as_text(self) -> str:
        """Return a table for a person."""
        titles = ("scans", "slices", "s", "s/scan", "linear", "driver MB", "flat", "worker MB")
        lines = ["".join(f"{title:>10}" for title in titles)]
        for run, time, memory in zip(self.runs, self.time_ratios, self.memory_ratios, strict=True):
            driver, worker = run.driver_bytes / 1e6, run.worker_bytes / 1e6
            lines.append(
                f"{run.scans:10}{run.slices:10}{run.scoring_s:10.1f}"
                f"{run.scoring_s / run.scans:10.3f}{time:10.3f}"
                f"{driver:10.0f}{memory:10.3f}{worker:10.0f}"
            )
        return "\n".join(lines)


def run_on(config: ScalingConfig, scans: int) -> JobRun:
    """Draw an archive of so many scans, and run the job on it.

    Raises:
        ConfigError: the method cannot run so.
        MeasurementError: the job did not come to its end.
    """
    with TemporaryDirectory(prefix="zsad") as folder:
        here = Path(folder)
        arguments = prepare(config, here, slices=scans * config.slices_per_scan)
        return run_job(arguments, here / "output")


def measure_scaling(config: ScalingConfig, run: Runner = run_on) -> Scaling:
    """Run the job on each archive, telling how far it is.

    Args:
        config: of the archives.
        run: does one run.
    """
    return Scaling(runs=[run(config, config.scans * factor) for factor in FACTORS])
