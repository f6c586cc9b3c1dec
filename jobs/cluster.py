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
