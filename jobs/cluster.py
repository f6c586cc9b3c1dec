"""The Ray cluster that a job runs on."""

from __future__ import annotations

import logging
import os

import ray
from ray.exceptions import RayError


class RunError(Exception):
    """The run itself failed, not one of its inputs; what is committed stays."""


def connect() -> None:
    """Join the Ray cluster of this machine or job, or start one for this process alone.

    Raises:
        RunError: the cluster that the environment names does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves a hospital
    # Ray's C++ core prints a harmless "error" about every actor pool (ray-project/ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(
            log_to_driver=False,  # workers' logs stay in Ray's folder; failures come back as rows
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (ConnectionError, RayError) as error:
        raise RunError(
            f"no Ray cluster to join ({type(error).__name__}): start it, or set RAY_ADDRESS=local"
        ) from error
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.ERROR)


def largest_share(workers: int, *, gpus: float) -> int:
    """Return how many CPUs each of several workers can have, all running at once.

    Args:
        workers: how many there will be.
        gpus: how many GPUs each needs.

    Raises:
        RunError: the cluster has too few CPUs or GPUs; Ray would wait for them without a word.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for cpus in range(max((int(node.get("CPU", 0)) for node in nodes), default=0), 0, -1):
        fitting = [int(node.get("CPU", 0) // cpus) for node in nodes]
        if gpus:
            free = [int(node.get("GPU", 0) / gpus) for node in nodes]
            fitting = [min(pair) for pair in zip(fitting, free, strict=True)]
        if sum(fitting) >= workers:
            return cpus
    have = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    raise RunError(
        f"{workers} workers with {gpus:g} GPUs each do not fit: {len(nodes)} machines have "
        f"{have['CPU']:g} CPUs and {have['GPU']:g} GPUs"
    )
