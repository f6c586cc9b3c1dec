"""The whole job on an archive that is drawn for it, measured by its detector alone.

The detector alone is measured before and after, in a process of its own, so that what else the
machine does slows both.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from jobs.benchmarking.archive import write_archive
from jobs.benchmarking.bare_detector import measure_bare
from jobs.benchmarking.config import PipelineConfig, RandomWeights, ScalingConfig
from jobs.benchmarking.job_run import JobRun, run_job
from jobs.benchmarking.random_weights import save_random_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineResult:
    """What was measured."""

    run: JobRun
    detector: tuple[float, float]
    """Slices a second of the detector alone, before and after the run."""

    @property
    def problem(self) -> str | None:
        """Why this is no result; None where it is one."""
        return "scans failed" if self.run.failed else None

    @property
    def rates(self) -> dict[str, float]:
        """Slices a second."""
        return {"pipeline": self.run.rate}

    @property
    def ratio(self) -> float:
        """How much of the detector's speed is left, while the job scores."""
        return self.run.rate / fmean(self.detector)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "pipeline_slices_per_s": self.run.rate,
            "later_slices_per_s": self.run.later_rate,
            "ratio_pipeline_over_detector": self.ratio,
            "ratio_command_over_detector": self._ratio_of_command,
            "bare_detector_slices_per_s": list(self.detector),
            **self.run.to_dict(),
        }

    @property
    def _ratio_of_command(self) -> float:
        return self.run.slices / self.run.command_s / fmean(self.detector)

    def as_text(self) -> str:
        """Return a table for a person."""
        run, (before, after) = self.run, self.detector
        rows = {
            "detector alone, before": before,
            "detector alone, after": after,
            "pipeline": run.rate,
            "pipeline, after the first scan": run.later_rate,
            "whole command": run.slices / run.command_s,
        }
        lines = [f"{f'{run.slices} slices, {run.scans} scans':32}{'slices/s':>9}{'÷ alone':>9}"]
        for name, rate in rows.items():
            if rate is not None:
                lines.append(f"{name:32}{rate:9.3g}{rate / fmean(self.detector):9.3f}")
        return "\n".join(
            [
                *lines,
                f"seconds: {run.startup_s:.1f} to start, {run.scoring_s:.1f} to read, score and "
                f"write, {run.finish_s:.1f} to finish",
                f"memory peaks: driver {run.driver_bytes / 1e6:.0f} MB, "
                f"worker {run.worker_bytes / 1e6:.0f} MB",
            ]
        )


def measure_pipeline(config: PipelineConfig) -> PipelineResult:
    """Draw an archive, and measure job and detector on it, telling how far it is.

    Raises:
        ConfigError: the checkpoint is not there, or the method cannot run so.
        MeasurementError: the job did not come to its end.
    """
    with TemporaryDirectory(prefix="zsad") as folder, own_process() as bare:
        arguments = prepare(config, Path(folder), slices=config.slices)
        before = _measure_bare(bare, arguments, config.bare_seconds)
        run = run_job(arguments, Path(folder) / "output")
        after = _measure_bare(bare, arguments, config.bare_seconds)
    return PipelineResult(run=run, detector=(before, after))


def prepare(config: PipelineConfig | ScalingConfig, folder: Path, *, slices: int) -> list[str]:
    """Make checkpoint and archive in a folder; return the arguments of the job that scores it.

    Raises:
        ConfigError: the checkpoint is not there, or the method cannot run so.
    """
    checkpoint = config.checkpoint
    if isinstance(checkpoint, RandomWeights):
        file = folder / "random.safetensors"
        with own_process() as process:
            process.submit(save_random_weights, file, checkpoint).result()
        checkpoint = str(file)
    print("drawing the archive", flush=True)
    size, per_scan = config.scan_size, config.slices_per_scan
    write_archive(folder / "archive", slices=slices, per_scan=per_scan, size=size)
    together = ["--batch-size", str(config.batch_size)] if config.batch_size else []
    return [
        *("--input", str(folder / "archive"), "--output", str(folder / "output")),
        *("--checkpoint", checkpoint, "--precision", config.precision, *together),
    ]


def own_process() -> ProcessPoolExecutor:
    """Return a process that has nothing of this one, and leaves nothing behind when it ends."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _measure_bare(process: ProcessPoolExecutor, arguments: list[str], seconds: float) -> float:
    rate = process.submit(measure_bare, tuple(arguments), seconds).result()
    print(f"detector alone: {rate:.3g} slices/s", flush=True)
    return rate
