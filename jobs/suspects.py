"""Scans whose process died: each is tried again alone, so that none is blamed for another.

A process that scores may hold several blocks when it dies, and the fault of one scan, of a machine
that was taken away, or of someone else who needed the memory all look alike. Alone in a process,
only a scan itself can be at fault, and it gets two attempts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError

from io_adapters.scan import ScanError, ScanRef, Stage
from jobs.outcomes import failure_json
from jobs.placement import Placement
from jobs.publishing import Publisher, PublisherSettings
from jobs.reading import read_row
from jobs.rows import column
from jobs.scoring import Scorer, ScorerSettings

ATTEMPTS = 2


class FatalScanError(ScanError):
    """A scan ended each process that worked on it."""


def score_suspects(
    suspects: Iterable[Mapping[str, str]],
    scorer: ScorerSettings,
    publisher: PublisherSettings,
    placement: Placement,
) -> Iterator[dict[str, Any]]:
    """Score scans one by one; yield the outcome of each.

    Args:
        suspects: `ref` and `meta` of each, as in a row.
        scorer: settings of the run.
        publisher: settings of the run.
        placement: of the run; one worker's resources are used.
    """
    alone: Any = None
    for suspect in suspects:
        row = {**suspect, "scan_id": "", "failure": ""}
        outcome = _given_up(suspect["ref"])
        for _ in range(ATTEMPTS):
            if alone is None:
                alone = (
                    ray.remote(_Alone)
                    .options(max_restarts=0, max_task_retries=0, **placement.resources)
                    .remote(scorer, publisher, placement)
                )
                ray.get(alone.ready.remote())  # what fails here is no scan's fault
            try:
                outcome = ray.get(alone.score.remote(row))
                break
            except RayActorError:
                alone = None
        yield json.loads(outcome)


def _given_up(ref: str) -> str:
    error = FatalScanError(
        f"its process ended without a word, and again in {ATTEMPTS} attempts alone: too little "
        "memory, or a library crashes on this file"
    )
    return failure_json(ScanRef.from_json(ref), Stage.SCORE, error)


class _Alone:
    """An actor: all stages in one process, for one scan at a time."""

    def __init__(
        self, scorer: ScorerSettings, publisher: PublisherSettings, placement: Placement
    ) -> None:
        self.scorer = Scorer(scorer, threads=placement.threads, on_gpu=placement.gpus > 0)
        self.publisher = Publisher(publisher)

    def ready(self) -> None:
        """Return once the model is loaded."""

    def score(self, row: dict[str, str]) -> str:
        """Take a row of a scan to its outcome."""
        batch = {name: column([value]) for name, value in read_row(row).items()}
        (outcome,) = self.publisher(self.scorer(batch))["outcome"]
        return outcome
