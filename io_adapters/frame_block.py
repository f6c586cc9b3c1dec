"""Memory for the frames of a series, taken at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class FrameBlock:
    """One array that the frames of many files are put into as they are read.

    An array for each file, and one for all at the end, hold a series twice; and the kernel gives
    out a large piece of memory several times as fast as many small ones.
    """

    def __init__(self, files: int, limit: int) -> None:
        """Prepare for a number of files, like the first of them, and at most `limit` bytes."""
        self._files = files
        self._limit = limit
        self._block = np.empty(0)
        self._used = 0

    def keep(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (F, …) as a part of the block; those unlike the first stay outside of it.

        A single file's stay outside as well: they are one array already.
        """
        if self._files == 1 or not len(frames):
            return frames
        if not self._used:
            count = len(frames) * max(1, min(self._files, self._limit // frames.nbytes))
            self._block = np.empty((count, *frames.shape[1:]), frames.dtype)
        place = self._block[self._used : self._used + len(frames)]
        if place.shape != frames.shape or place.dtype != frames.dtype:
            return frames
        place[...] = frames
        self._used += len(frames)
        return place

    def join(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Return frames as one array (S, …), without a copy where they follow each other in it."""
        first = self._index(frames[0])
        if first is None or [self._index(frame) for frame in frames] != list(
            range(first, first + len(frames))
        ):
            return np.stack(frames)
        return self._block[first : first + len(frames)]

    def _index(self, frame: np.ndarray) -> int | None:
        """Return which of the block's frames this is, None if it lies elsewhere."""
        if not self._used or frame.dtype != self._block.dtype:
            return None
        index, rest = divmod(frame.ctypes.data - self._block.ctypes.data, self._block[0].nbytes)
        inside = rest == 0 and 0 <= index < self._used
        return index if inside and frame.shape == self._block.shape[1:] else None
