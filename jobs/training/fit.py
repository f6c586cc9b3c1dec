"""Ray Train: start the workers, listen to them, start them again when one is lost."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from jobs.cluster import RunError, machines
from jobs.placement import largest_share
from jobs.training.loop import TrainingJob
from jobs.training.worker import run_worker

ATTEMPTS = 3
"""How often the workers are started, if one of them is lost each time."""
LISTEN_S = 0.5
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""OpenMP's threads wait for each other in a spinning loop, which on CPUs that others use too (the
loader, another process) made steps up to ten times as long; asleep they lose next to nothing."""
Take = Callable[[dict[str, Any]], None]


class LostWorkerError(Exception):
    """A worker's process or machine ended without a word."""


def fit(job: TrainingJob, take: Take) -> dict[str, Any]:
    """Train; return what the first worker returns.

    Args:
        job: what to train.
        take: called with each event that the workers tell.

    Raises:
        RunError: training cannot go on, or there is no room for the workers.
    """
    config = job.config
    gpus = config.gpus_per_worker
    resources = {"CPU": float(largest_share(machines(), config.workers, gpus=gpus))}
    if gpus:
        resources["GPU"] = gpus
    scaling = ScalingConfig(
        num_workers=config.workers,
        use_gpu=gpus > 0,
        resources_per_worker=resources,
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fit_once(job, scaling, take)
        except LostWorkerError as error:
            if attempt == ATTEMPTS:
                raise RunError(
                    f"{error}, {ATTEMPTS} times; the same command goes on from the last epoch"
                ) from error
            take({"phase": f"{error}; starting again from the last epoch"})
    raise AssertionError  # the last attempt returns or raises


def _fit_once(job: TrainingJob, scaling: ScalingConfig, take: Take) -> dict[str, Any]:
    events = Queue(actor_options={"num_cpus": 0})
    outcome: list[Any] = []
    problems: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        if problem := event.get("problem"):
            problems.append(problem)
        else:
            take(event)

    with tempfile.TemporaryDirectory(prefix="zsad-") as unused:  # our state is not Ray's matter
        trainer = TorchTrainer(
            run_worker,
            train_loop_config={"job": job, "events": events},
            scaling_config=scaling,
            run_config=RunConfig(  # type: ignore[call-arg]  # ray.train's annotations are of V1
                name="run",
                storage_path=unused,
                worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
            ),
        )
        # In a thread, so that this one can print, and be interrupted.
        thread = threading.Thread(target=_run, args=(trainer, outcome), daemon=True)
        thread.start()
        while thread.is_alive() or not events.empty():
            try:
                hear(events.get(timeout=LISTEN_S))
            except Empty:
                continue
    events.shutdown()
    result = outcome[0]
    if not isinstance(result, Exception):
        return dict(result.return_value)
    if _lost_worker(result):
        raise LostWorkerError("a worker was lost (its process or machine ended)") from result
    if problems:
        raise RunError(problems[0]) from result
    raise RunError(
        f"Ray Train ended the run ({type(result).__name__}); its logs are in Ray's temporary "
        "folder under session_latest/logs/train"
    ) from result


def _run(trainer: TorchTrainer, outcome: list[Any]) -> None:
    try:
        outcome.append(trainer.fit())
    except Exception as error:  # of whatever kind, it is told in the thread that listens
        outcome.append(error)


def _lost_worker(error: Exception) -> bool:
    """Tell whether a process is gone; the others then fail too, waiting for it."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else [error]
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures]
    return any(isinstance(cause, RayActorError) for cause in causes)
