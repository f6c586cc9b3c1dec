"""The Ray Data stages: scans → read → score → publish → one small row a scan.

One scan is one row; a volume is a block of its own, single images share one so that they fill a
device batch. Nothing is grouped or shuffled on the way. Where each stage runs, the placement says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from io_adapters.scan import ScanRef
from jobs.placement import Placement
from jobs.publishing import Publisher, PublisherSettings, publish_block
from jobs.reading import read_block
from jobs.rows import IMAGES_PER_BLOCK, IMAGES_PER_GPU_BLOCK, Batch, Meta, blocks_of
from jobs.scoring import Scorer, ScorerSettings
from jobs.suspects import score_suspects
from jobs.watch import Watch

SCANS_PER_EXECUTION = 100_000
"""Scans that go through the stages in one execution: Ray Data keeps books of all that are in it."""
BYTES_PER_EXECUTION = 256_000_000
"""And of what describes them: a ref names every file of a series."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """What the stages of a run need to know."""

    scorer: ScorerSettings
    publisher: PublisherSettings
    no_progress_s: float
    """When to give up a run in which no scan ends."""


class Score:
    """The scoring actor of the staged layout."""

    def __init__(self, settings: StageSettings, placement: Placement, watch: Watch) -> None:
        self.scorer = Scorer(settings.scorer, threads=placement.threads, on_gpu=placement.gpus > 0)
        self.watch = watch

    def __call__(self, batch: Batch) -> Batch:
        """Score the scans of a block."""
        with self.watch.over("score", batch) as watched:
            return self.scorer(watched)


class ScoreAndPublish(Score):
    """The actor of the fused layout, into which Ray fuses reading too."""

    def __init__(self, settings: StageSettings, placement: Placement, watch: Watch) -> None:
        super().__init__(settings, placement, watch)
        self.publisher = Publisher(settings.publisher)

    def __call__(self, batch: Batch) -> Batch:
        """Score and publish the scans of a block."""
        scored = super().__call__(batch)
        with self.watch.over("publish", scored) as watched:
            return self.publisher(watched)


def run_stages(
    todo: Iterable[tuple[ScanRef, Meta]], settings: StageSettings, placement: Placement
) -> Iterator[dict[str, Any]]:
    """Score scans on the connected Ray cluster; yield {"record": …} or {"failure": …} as they end.

    Args:
        todo: the scans, and for each what its result depends on beside its bytes. They are asked
            for while others are scored, so that millions need no more memory than a few.
        settings: of the run.
        placement: its layout on the cluster.
    """
    watch = Watch()
    images = IMAGES_PER_GPU_BLOCK if placement.gpus else IMAGES_PER_BLOCK
    for blocks in waves(blocks_of(todo, images)):
        suspects: list[dict[str, str]] = []
        scored = lay_out(blocks, settings, placement, watch)
        for batch in scored.iter_batches(batch_size=None, batch_format="numpy"):
            for outcome in map(json.loads, batch["outcome"]):
                if "suspect" in outcome:
                    suspects.append(outcome["suspect"])
                else:
                    yield outcome
        yield from score_suspects(suspects, settings.scorer, settings.publisher, placement)


def waves(blocks: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Yield blocks in lists that are small enough for one execution."""
    wave: list[pa.Table] = []
    scans = size = 0
    for block in blocks:
        wave.append(block)
        scans, size = scans + len(block), size + block.nbytes
        if scans >= SCANS_PER_EXECUTION or size >= BYTES_PER_EXECUTION:
            yield wave
            wave, scans, size = [], 0, 0
    if wave:
        yield wave


def lay_out(
    blocks: list[pa.Table], settings: StageSettings, placement: Placement, watch: Watch
) -> Dataset:
    """Return the stages of some blocks as a dataset that runs when it is read."""
    _configure_ray_data(settings.no_progress_s)
    rows: Dataset = ray.data.from_blocks(blocks)  # `from_arrow` has a task look at each first
    most = min(placement.max_workers, len(blocks))
    workers = ActorPoolStrategy(
        min_size=min(placement.min_workers, most),
        max_size=most,
        max_tasks_in_flight_per_actor=4,
        max_concurrent_calls_per_actor=2,  # one block scores, while another is read or published
        enable_true_multi_threading=True,  # the model itself gives each its turn
    )
    arguments = (settings, placement, watch)
    if placement.tasks is None:
        return rows.map_batches(
            read_block,  # type: ignore[arg-type]  # gets fn_args too
            fn_args=(watch,),
            **placement.resources,  # those of the actor, so that Ray fuses the two
        ).map_batches(
            ScoreAndPublish,
            fn_constructor_args=arguments,
            compute=workers,
            **placement.resources,
        )
    tasks = placement.tasks
    return (
        rows.map_batches(
            read_block,  # type: ignore[arg-type]  # gets fn_args too
            fn_args=(watch,),
            compute=TaskPoolStrategy(size=tasks.readers),
            num_cpus=tasks.read_cpus,
            label_selector=tasks.selector,
        )
        # `map_batches` wants a number of rows for a GPU, and would wait for as many volumes.
        .map_batches_internal(
            Score, fn_constructor_args=arguments, compute=workers, **placement.resources
        )
        .map_batches(
            publish_block,  # type: ignore[arg-type]
            fn_args=(settings.publisher, watch),
            num_cpus=tasks.publish_cpus,
            label_selector=tasks.selector,
        )
    )


def _configure_ray_data(no_progress_s: float) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = no_progress_s
    context.max_errored_blocks = -1  # the net under the net; the job reconciles what went in
