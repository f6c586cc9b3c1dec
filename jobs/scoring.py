"""The score stage: display values → patch maps and image scores, on the device of an actor.

It packs the slices of several scans into full device batches, because a batch of slices costs a
GPU hardly more than one, and most images are scans of a single slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import tee

import numpy as np

from io_adapters.scan import ScanRef, Stage
from jobs.in_flight import ScanInFlight, View
from jobs.model import Model
from jobs.outcomes import failure_json
from jobs.rows import NO_DISPLAY, NO_IMAGE_SCORES, NO_PATCH_MAPS, Batch, column

Chunk = list[tuple[ScanInFlight, View, int]]
"""What goes through the model at once: scan, view and number of each slice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerSettings:
    """What an actor needs to build its detector."""

    checkpoint: str
    clip: str | None
    precision: str
    batch_size: int | None
    """None: what the device has memory for."""


class Scorer:
    """Scores batches of scans; one per device, built once per worker process."""

    def __init__(self, settings: ScorerSettings, *, threads: int, on_gpu: bool) -> None:
        """Load the model, and warm it up.

        Args:
            settings: which one.
            threads: CPU threads of the model; Ray would leave torch with one.
            on_gpu: whether it may use the GPU that it sees.
        """
        self.model = Model.load(
            settings.checkpoint,
            clip=settings.clip,
            precision=settings.precision,
            threads=threads,
            on_gpu=on_gpu,
        )
        self.model.settle(settings.batch_size)

    def __call__(self, batch: Batch) -> Batch:
        """Add `patch_maps` and `image_scores` to rows that are read."""
        failures = [str(failure) for failure in batch["failure"]]
        scans = {
            row: ScanInFlight(ref=ScanRef.from_json(ref), meta=json.loads(meta), display=display)
            for row, (ref, meta, display) in enumerate(
                zip(batch["ref"], batch["meta"], batch["display"], strict=True)
            )
            if not failures[row]
        }
        self._score_or_fail(scans, failures)
        scored = [None if failure else scans[row] for row, failure in enumerate(failures)]
        return batch | {
            "failure": failures,
            "display": column([scan.display if scan else NO_DISPLAY for scan in scored]),
            "patch_maps": column([scan.patch_maps if scan else NO_PATCH_MAPS for scan in scored]),
            "image_scores": column(
                [scan.image_scores if scan else NO_IMAGE_SCORES for scan in scored]
            ),
        }

    def score(self, scans: list[ScanInFlight]) -> None:
        """Fill in the patch maps and image scores of scans, in full batches across scans."""
        for view in (view for scan in scans for view in scan.views):
            view.clear(self.model.grid)
        chunks, ahead = tee(_chunks(scans, self.model.limit.most))
        with closing(self.model.score_batches(map(_batch, ahead))) as scored:
            for chunk, scores in zip(chunks, scored, strict=True):
                maps, images = scores.maps.numpy(), scores.image.numpy()
                for (_, view, s), map_, image in zip(chunk, maps, images, strict=True):
                    view.patch_maps[s], view.image_scores[s] = map_, image

    def _score_or_fail(self, scans: dict[int, ScanInFlight], failures: list[str]) -> None:
        """Score scans together, or each alone if that fails, so that none is blamed for another."""
        try:
            self.score(list(scans.values()))
            return
        except Exception as error:
            if len(scans) == 1:
                ((row, scan),) = scans.items()
                failures[row] = failure_json(scan.ref, Stage.SCORE, error)
                return
        for row, scan in scans.items():
            self._score_or_fail({row: scan}, failures)


def _batch(chunk: Chunk) -> tuple[list[np.ndarray], list[str]]:
    """Return the slices of a chunk, and their classes."""
    return (
        [view.slices[s] for _, view, s in chunk],
        [scan.meta["class_name"] for scan, _, _ in chunk],
    )


def _chunks(scans: list[ScanInFlight], size: int) -> Iterator[Chunk]:
    """Yield (scan, view, slice) of all scans in lists of `size`; blank slices are left out."""
    chunk: Chunk = []
    for scan in scans:
        for view in scan.views:
            for s, plane in enumerate(view.slices):
                if plane.min() == plane.max():
                    continue
                chunk.append((scan, view, s))
                if len(chunk) == size:
                    yield chunk
                    chunk = []
    if chunk:
        yield chunk
