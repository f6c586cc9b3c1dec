"""A detector against the plain implementation of its method, and the whole job around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobs.benchmarking.against_plain import compare
from jobs.benchmarking.comparison import Comparison
from jobs.benchmarking.config import AllConfig
from jobs.benchmarking.pipeline import PipelineResult, measure_pipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class Both:
    """What was measured."""

    detector: Comparison
    pipeline: PipelineResult

    @property
    def problem(self) -> str | None:
        """Why the numbers are none."""
        return self.detector.problem or self.pipeline.problem

    @property
    def rates(self) -> dict[str, float]:
        """Slices a second of the detector's variants and of the job."""
        return self.detector.rates | self.pipeline.rates

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return self.detector.to_dict() | self.pipeline.to_dict()

    def as_text(self) -> str:
        """Return tables for a person."""
        return f"{self.detector.as_text()}\n\n{self.pipeline.as_text()}"


def measure_both(config: AllConfig) -> Both:
    """Measure one after the other, telling how far it is.

    The job gets the batch size at which the detector was fastest.

    Raises:
        ConfigError: the method cannot run so.
        MeasurementError: the job did not come to its end.
    """
    detector = compare(config.detector)
    size = detector.stages.slices
    return Both(
        detector=detector,
        pipeline=measure_pipeline(replace(config.pipeline, batch_size=size)),
    )
