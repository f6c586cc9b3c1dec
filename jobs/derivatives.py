"""The BIDS derivatives of a run: its maps once more, as a dataset that BIDS tools read.

They are made of what is committed, one Ray task a scan, after scoring: so scans of earlier runs
have theirs too, and a GPU never waits for compression.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import ray
from ray.exceptions import RayError

from io_adapters import bids
from io_adapters.bids_derivatives import Derivatives, ForeignDatasetError, target
from io_adapters.tables import Record
from jobs.cluster import RunError, connect
from jobs.config import ScoreConfig
from jobs.settings import ConfigError

_FIELDS = ("scan_id", "score", "fingerprint", "map")
"""What a task needs of a record."""


def has_derivatives(uri: str) -> bool:
    """Tell whether BIDS has derivatives for what is at a URI."""
    return bool(target(uri, keep_ids=True))


def check_derivatives(config: ScoreConfig, uris: Collection[str]) -> None:
    """Make sure, before anything is scored, that there can be derivatives.

    Args:
        config: with a `bids_output`.
        uris: of the scans that have some.

    Raises:
        ConfigError: no scan, or scans of several datasets, would have any; two would have the
            same; or the folder holds another dataset.
    """
    option = f"--bids-output {config.bids_output}"
    if not uris:
        raise ConfigError(f"{option}: no input is an anat, func or dwi volume named as in BIDS")
    datasets = {_dataset_of(uri) for uri in uris}
    if len(datasets) > 1:
        raise ConfigError(f"{option}: the inputs hold {len(datasets)} datasets; run each alone")
    if len({target(uri, keep_ids=True) for uri in uris}) < len(uris):
        raise ConfigError(f"{option}: two volumes differ in nothing but .nii and .nii.gz")
    try:
        _derivatives(config, heat=(0, 1)).check()
    except ForeignDatasetError as error:
        raise ConfigError(f"{option}: {error}") from error


def write_derivatives(
    config: ScoreConfig, records: Iterable[Record], *, heat: tuple[float, float]
) -> None:
    """Write the derivatives of committed scans; those that are there already stay.

    Args:
        config: with a `bids_output`.
        records: of the run's scans; those for which BIDS has no derivatives are passed over.
        heat: the model's.

    Raises:
        RunError: a map cannot be read, or a derivative not written.
    """
    todo, others = [], 0
    for record in records:
        if has_derivatives(record["uri"]):
            todo.append((record["uri"], {name: record[name] for name in _FIELDS}))
        else:
            others += 1
    derivatives = _derivatives(config, heat)
    connect()
    try:
        tasks = [
            _write_scan.remote(derivatives, uri, config.output, record) for uri, record in todo
        ]
        written = sum(ray.get(tasks))
        if todo:
            derivatives.write_dataset(_dataset_of(todo[0][0]))
    except (RayError, OSError) as error:
        raise RunError(
            f"the BIDS derivatives could not be written ({type(error).__name__}); the scores are "
            "complete, and the same command goes on from there"
        ) from error
    print(
        f"BIDS derivatives: {len(todo)} scans, {written} of them new, at {config.bids_output}; "
        f"{others} scans have none"
    )


@ray.remote
def _write_scan(derivatives: Derivatives, uri: str, results: str, record: dict[str, Any]) -> bool:
    return derivatives.write_scan(uri, results, record)


def _derivatives(config: ScoreConfig, heat: tuple[float, float]) -> Derivatives:
    return Derivatives(output=str(config.bids_output), heat=heat, keep_ids=config.keep_ids)


def _dataset_of(uri: str) -> str:
    name = bids.parse(uri)
    return name.root if name else ""
