"""The rows that go through the stages, one a scan, and the blocks they travel in.

    scan_id, ref, meta   strings: `ScanRef` and what its result depends on, as JSON
    failure              empty, or the outcome of a scan that later stages pass over
    display              uint8 (S, H, W, C), once it is read
    patch_maps           float32 (S, h, w) and
    image_scores         float32 (S,), of the slices of all its views, once it is scored

Arrays of a column have one type and one number of dimensions, because another one in the same
block would make Ray pickle them: a scan that failed has empty ones. Metadata is one string, because
nested columns do not survive Ray's blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from io_adapters.scan import Kind, ScanRef

Meta = Mapping[str, Any]
"""class_name, domain, plane, window, crop and fingerprint of a scan's result."""
Batch = dict[str, Any]
"""Columns of some rows, as Ray hands them to a stage."""

IMAGES_PER_BLOCK = 8
"""Single images that a stage takes at once; a volume is taken alone, so that progress shows."""
IMAGES_PER_GPU_BLOCK = 32
"""The same where GPUs score: each block costs the driver 10 ms a stage, so that it could not keep
several GPUs busy with smaller ones."""
BLOCK_BYTES = 64_000_000
"""Files of images that share a block; larger ones are taken alone too."""
NO_DISPLAY = np.zeros((0, 0, 0, 1), dtype=np.uint8)
NO_PATCH_MAPS = np.zeros((0, 0, 0), dtype=np.float32)
NO_IMAGE_SCORES = np.zeros(0, dtype=np.float32)


def blocks_of(
    scans: Iterable[tuple[ScanRef, Meta]], images: int = IMAGES_PER_BLOCK
) -> Iterator[pa.Table]:
    """Yield the blocks of scans, the same for the same scans: tables of rows to be read.

    Args:
        scans: with what their results depend on.
        images: how many single ones share a block.
    """
    block: list[dict[str, str]] = []
    size = 0
    for ref, meta in scans:
        row = {
            "scan_id": ref.scan_id,
            "ref": ref.to_json(),
            "meta": json.dumps(meta),
            "failure": "",
        }
        if ref.kind is not Kind.IMAGE:
            yield pa.Table.from_pylist([row])
            continue
        ref_size = sum(file.size for file in ref.files)
        if block and (len(block) == images or size + ref_size > BLOCK_BYTES):
            yield pa.Table.from_pylist(block)
            block, size = [], 0
        block.append(row)
        size += ref_size
    if block:
        yield pa.Table.from_pylist(block)


def column(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return a column of arrays that may differ in shape."""
    values = np.empty(len(arrays), dtype=object)
    for n, array in enumerate(arrays):
        values[n] = array
    return values
