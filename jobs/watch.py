"""Who was at work when a process died: blocks that a stage began and did not end.

Ray runs the block of a lost process again, and again. A scan that kills its process each time (a
codec that crashes, a volume that does not fit into memory) would keep a run busy for ever. So a
block that turns up a second time, unfinished, is not touched again: all its scans become suspects,
which are tried alone, see `jobs.suspects`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.outcomes import suspect_json
from jobs.rows import Batch


class Watch:
    """Knows what is at work on all machines of a run."""

    def __init__(self) -> None:
        """Start watching, on this machine: if it is lost, so is the run."""
        here = ray.get_runtime_context().get_node_id()
        self._blocks: Any = (
            ray.remote(_Blocks)
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=False),
            )
            .remote()
        )

    @contextmanager
    def over(self, stage: str, batch: Batch) -> Iterator[Batch]:
        """Watch over a stage's work on a batch.

        Yields the batch; if its last process died, then with all its scans as suspects.
        """
        key = f"{stage} {batch['scan_id'][0]}"
        if ray.get(self._blocks.begin.remote(key)):
            pairs = zip(batch["ref"], batch["meta"], strict=True)
            batch = batch | {"failure": [suspect_json(ref, meta) for ref, meta in pairs]}
        try:
            yield batch
        finally:  # also after an error, which Ray does not try again
            self._blocks.end.remote(key)


class _Blocks:
    """An actor: the blocks at work, each named after its stage and its first scan."""

    def __init__(self) -> None:
        self._begun: set[str] = set()

    def begin(self, key: str) -> bool:
        """Note the begin of a block; tells whether it had begun before, and not ended."""
        known = key in self._begun
        self._begun.add(key)
        return known

    def end(self, key: str) -> None:
        """Note the end of a block."""
        self._begun.discard(key)
