"""The Ray Data stages: scan refs → read → score and publish → one small row a scan.

One scan is one row; a volume is a block of its own, single images share one so that they fill a
device batch. Nothing is grouped or shuffled on the way. Reading never raises: a bad scan is a row
with a failure and empty pixels, because an exception would take its block along, and a missing
array would break the block's type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset

from io_adapters.display import to_display
from io_adapters.foreground import Crop, find_foreground
from io_adapters.planes import three_planes
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Plane, Scan, ScanRef, Stage
from io_adapters.windows import rewindow
from jobs.scoring import Scorer, ScorerSettings, failure_json

IMAGES_PER_BLOCK = 8
"""Single images that an actor takes at once; a volume is taken alone, so that progress shows."""
BLOCK_BYTES = 64_000_000
"""Files of images that share a block; larger ones are taken alone too."""
NOTHING = np.zeros((0, 0, 0, 1), dtype=np.uint8)
NO_PROGRESS_S = 3 * 3600.0
"""When to give up a run in which no scan ends: three times what the largest volume we know needs
on a CPU (500 slices of ViT-L at 518 px, 7 s each)."""


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read one scan: {"ref", "meta"} → {"ref", "meta", "display", "failure"}.

    `display` is uint8 (S, H, W, C), always of four dimensions; `failure` is empty or an outcome.
    """
    ref, meta = ScanRef.from_json(row["ref"]), json.loads(row["meta"])
    try:
        scan = read_scan(ref, Plane(meta["plane"]))
        if ref.kind is not Kind.IMAGE:
            scan = rewindow(scan, meta["window"])
        display = to_display(scan)
        meta |= describe(scan, display, meta)
        return {**row, "meta": json.dumps(meta), "display": display, "failure": ""}
    except Exception as error:
        return {**row, "display": NOTHING, "failure": failure_json(ref, Stage.READ, error)}


def describe(scan: Scan, display: np.ndarray, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what scoring and publishing need to know of a scan beside its display values."""
    geometry = scan.geometry
    volumes = (geometry.volumes if geometry else None) or 1
    box = find_foreground(display, volumes) if meta["crop"] == Crop.FOREGROUND else None
    several = len(display) > 1 and meta["plane"] == Plane.ALL
    one_plane = several and not (geometry and three_planes(geometry))
    return {
        "shape": list(scan.pixels.shape[:3]),
        "spacing_mm": geometry.spacing() if geometry else None,
        "geometry": geometry.to_dict() if geometry else None,
        "modality": scan.modality,
        "flags": [*scan.flags, *(["one_plane"] if one_plane else [])],
        "window": list(scan.window),
        "crop": box.to_dict() if box else None,
        "sources": [(source.file.uri, source.frame) for source in scan.sources],
    }


def run_stages(
    refs: Sequence[ScanRef], metas: Sequence[Mapping[str, Any]], settings: ScorerSettings
) -> Iterator[dict[str, Any]]:
    """Score scans on the connected Ray cluster; yield {"record": …} or {"failure": …} as they end.

    Args:
        refs: the scans.
        metas: for each, what its result depends on beside its bytes: class_name, domain, plane,
            window, crop, fingerprint.
        settings: of the scoring actors.
    """
    scored = lay_out(refs, metas, settings)
    for batch in scored.iter_batches(batch_size=None, batch_format="numpy"):
        for outcome in batch["outcome"]:
            yield json.loads(outcome)


def lay_out(
    refs: Sequence[ScanRef], metas: Sequence[Mapping[str, Any]], settings: ScorerSettings
) -> Dataset:
    """Return the stages as a dataset that runs when it is read; arguments as `run_stages`."""
    _configure_ray_data()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return (
        ray.data.from_arrow(list(blocks_of(refs, metas)))
        .map(read_row)  # the same resources as the actor on a CPU, so that Ray fuses the two
        .map_batches(
            Scorer,
            fn_constructor_args=(settings,),
            batch_size=IMAGES_PER_BLOCK if gpus else None,  # None: a block; a GPU needs a number
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=settings.workers,
                max_tasks_in_flight_per_actor=4,
                max_concurrent_calls_per_actor=2,  # the next batch is read while this one scores
            ),
            num_gpus=1 if gpus else None,
        )
    )


def blocks_of(refs: Sequence[ScanRef], metas: Sequence[Mapping[str, Any]]) -> Iterator[pa.Table]:
    """Yield the blocks of a run, the same for the same scans: tables of `ref` and `meta`."""
    block: list[dict[str, str]] = []
    size = 0
    for ref, meta in zip(refs, metas, strict=True):
        row = {"ref": ref.to_json(), "meta": json.dumps(meta)}
        if ref.kind is not Kind.IMAGE:
            yield pa.Table.from_pylist([row])
            continue
        ref_size = sum(file.size for file in ref.files)
        if block and (len(block) == IMAGES_PER_BLOCK or size + ref_size > BLOCK_BYTES):
            yield pa.Table.from_pylist(block)
            block, size = [], 0
        block.append(row)
        size += ref_size
    if block:
        yield pa.Table.from_pylist(block)


def _configure_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_errored_blocks = -1  # the net under the net; the job reconciles what went in
