"""The read stage: a scan's files → display values, in a task of its own or in a scoring actor.

Reading never raises: a bad scan is a row with a failure and empty pixels, because an exception
would take its block along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from io_adapters.display import to_display
from io_adapters.foreground import Crop, find_foreground
from io_adapters.planes import three_planes
from io_adapters.readers import read_scan
from io_adapters.scan import Kind, Plane, Scan, ScanRef, Stage
from io_adapters.windows import rewindow
from jobs.outcomes import failure_json
from jobs.rows import NO_DISPLAY, Batch, column
from jobs.watch import Watch


def read_block(batch: Batch, watch: Watch) -> Iterator[Batch]:
    """Read the scans of a block, one after the other: each is a block as soon as it is large."""
    with watch.over("read", batch) as watched:
        for values in zip(*watched.values(), strict=True):
            row = read_row(dict(zip(watched, values, strict=True)))
            yield {name: column([value]) for name, value in row.items()}


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read one scan: add `display` to a row, and to its `meta` what reading found out."""
    if row["failure"]:
        return {**row, "display": NO_DISPLAY}
    ref, meta = ScanRef.from_json(row["ref"]), json.loads(row["meta"])
    try:
        scan = read_scan(ref, Plane(meta["plane"]))
        if ref.kind is not Kind.IMAGE:
            scan = rewindow(scan, meta["window"])
        display = to_display(scan)
        meta |= describe(scan, display, meta)
        return {**row, "meta": json.dumps(meta), "display": display}
    except Exception as error:
        return {**row, "display": NO_DISPLAY, "failure": failure_json(ref, Stage.READ, error)}


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
