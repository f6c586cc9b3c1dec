"""How many slices go through a model at once: what its device's memory has room for.

On a CPU each core has a slice of its own, so batches only have to give work to all of them. On a
GPU the number is measured once, and halved when memory turns out not to suffice.
"""

from __future__ import annotations

import logging

import torch

from io_adapters.scan import ScanError

SLICES_PER_CORE = 4
"""Slices of a batch on a CPU, for each thread of the model."""
MOST_GPU_SLICES = 64
"""Slices of a batch on a GPU that has memory for more: they would only come later."""
SHARE = 0.8
"""Of a GPU's free memory that a batch may need: memory in pieces cannot all be used."""

log = logging.getLogger(__name__)


class NoMemoryError(ScanError):
    """The device has too little memory for a model and a single slice."""


class BatchLimit:
    """How many slices a model takes at once; less, once memory did not suffice."""

    def __init__(self, most: int) -> None:
        self.most = most

    def lower(self, tried: int) -> None:
        """Allow for half of a number of slices that memory did not suffice for.

        Raises:
            NoMemoryError: it was a single one.
        """
        if tried == 1:
            raise NoMemoryError(
                "too little memory for the model and a single slice: let fewer workers share a "
                "device (--workers, --gpus-per-worker 1), or use one with more memory"
            )
        self.most = max(1, min(self.most, tried // 2))
        log.warning("too little memory for %d slices at once: from now on %d", tried, self.most)


def is_lack_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory did not suffice, of a GPU or of this machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def fitting(free: int, one: int, two: int) -> int:
    """Return how many slices fit into memory: a power of two, up to `MOST_GPU_SLICES`.

    Args:
        free: bytes that batches can have.
        one: bytes that a batch of one slice needs.
        two: bytes that a batch of two needs.
    """
    each = max(1, two - one)
    fits = int((SHARE * free - (one - each)) / each)
    return 1 << max(1, min(fits, MOST_GPU_SLICES)).bit_length() - 1
