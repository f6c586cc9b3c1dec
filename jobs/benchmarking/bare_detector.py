"""The detector alone, on the scans of a scoring run: what the rest of the run is measured by."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import cache
from itertools import cycle, takewhile

import numpy as np

from jobs.cluster import machines
from jobs.config import ScoreConfig, parse_config
from jobs.ledger import Ledger
from jobs.model import Model
from jobs.placement import place
from jobs.plan import make_plan, run_settings
from jobs.reading import read_row
from zsad.checkpoints import Checkpoint
from zsad.detectors import load_detector

Chunk = tuple[list[np.ndarray], list[str]]
"""Slices uint8 (H, W, C), and what they show."""


def measure_bare(arguments: tuple[str, ...], seconds: float) -> float:
    """Return the slices a second of the detector of a run, which is spared everything else.

    It gets the run's slices, read before, from memory, and computes with the run's precision, on
    all CPUs that the run's workers have; nothing is rendered or written. Of several GPUs it has
    one, and its rate counts as often as the run has workers. To be called in a process of its own,
    which keeps model and slices for the next call.

    Args:
        arguments: those of `jobs/score_dataset.py`.
        seconds: how long to measure, at least; slices are scored again and again.
    """
    model, chunks, devices = _load(arguments)
    began = time.perf_counter()
    enough = takewhile(lambda _: time.perf_counter() - began < seconds, cycle(chunks))
    scored = sum(len(scores.maps) for scores in model.score_batches(enough))
    took = time.perf_counter() - began
    model.on.free_memory()  # a GPU's, for the run
    return devices * scored / took


@cache
def _load(arguments: tuple[str, ...]) -> tuple[Model, list[Chunk], int]:
    """Return a model that is warm, all batches, and how many devices like the model's there are."""
    os.environ["RAY_ADDRESS"] = "local"  # as the run: with a Ray of its own, on this machine
    config = parse_config([*arguments, "--dry-run"])
    detector, checkpoint = load_detector(config.checkpoint)
    slice_flops = checkpoint.backbone.slice_flops()
    placement = place(machines(), config.wanted, slice_flops=slice_flops)
    devices = placement.max_workers if placement.gpus else 1
    model = Model(
        detector,
        precision=config.precision,
        threads=placement.threads * placement.max_workers // devices,
        on_gpu=placement.gpus > 0,
    )
    model.settle(config.batch_size)
    chunks = list(_chunks(config, checkpoint, model.limit.most))
    model.score(*chunks[0])  # reads the class's text, too
    return model, chunks, devices


def _chunks(config: ScoreConfig, checkpoint: Checkpoint, size: int) -> Iterator[Chunk]:
    """Read all scans, as the run does, and yield the batches of each."""
    with Ledger.open() as ledger:
        make_plan(config, run_settings(config, checkpoint), ledger)
        for ref, meta in ledger.todo():
            row = {"ref": ref.to_json(), "meta": json.dumps(meta), "failure": ""}
            slices = list(read_row(row)["display"])
            for start in range(0, len(slices), size):
                chunk = slices[start : start + size]
                yield chunk, [meta["class_name"]] * len(chunk)
