"""What Ray Train runs in each worker: who am I, the loop, and errors in words."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue

from jobs.training.batches import BrokenImageError
from jobs.training.loop import TrainingError, TrainingJob, TrainingLoop, Worker
from jobs.training.state import StateError
from zsad.backbone import WeightsError

EXPLAINED = (BrokenImageError, StateError, TrainingError, WeightsError)


def run_worker(arguments: dict[str, Any]) -> Any:
    """Train; the result of the first worker is what the driver gets.

    Args:
        arguments: `job`, a TrainingJob, and `events`, the queue that the driver listens to.
    """
    job: TrainingJob = arguments["job"]
    events: Queue = arguments["events"]
    try:
        worker = this_worker()
        return TrainingLoop(job, worker, events.put if worker.rank == 0 else _silent).run()
    except Exception as error:
        events.put({"problem": in_words(error)})
        raise


def this_worker() -> Worker:
    """Return who this process is, and give torch its CPUs; Ray leaves it with one."""
    context = ray.train.get_context()
    cpus = int(ray.get_runtime_context().get_assigned_resources()["CPU"])
    torch.set_num_threads(cpus)
    device = ray.train.torch.get_device()
    if device.type == "cuda":  # so that a run which continues ends like one that never stopped
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return Worker(
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
        device=device,
        loaders=max(1, cpus - 1) if device.type == "cuda" else 1,  # else the model needs the CPUs
    )


def in_words(error: Exception) -> str:
    """Return what to tell a person; texts of unforeseen errors may quote data and stay out."""
    if isinstance(error, EXPLAINED):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU has too little memory: use a smaller batch size, or bf16"
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"unexpected {type(error).__name__} at {where}; please report it"


def _silent(event: dict[str, Any]) -> None:
    """Tell nobody: one worker's progress is enough."""
