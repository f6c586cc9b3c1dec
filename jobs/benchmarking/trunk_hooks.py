"""When a detector's vision tower works through its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

Reading = TypeVar("Reading")


@contextmanager
def watch_trunk(
    detector: Any, read: Callable[[], Reading]
) -> Iterator[list[tuple[Reading, Reading]]]:
    """Read a meter before the first block and after the last one.

    Args:
        detector: with a `zsad.backbone.Backbone`.
        read: the meter.

    Yields a list that gets both readings of each pass through the blocks; a method may need two.
    """
    passes: list[tuple[Reading, Reading]] = []

    def begin(*_: Any) -> None:
        passes.append((now := read(), now))

    def end(*_: Any) -> None:
        passes[-1] = (passes[-1][0], read())  # until the next block ends

    blocks = detector.backbone.clip.visual.transformer.resblocks
    with ExitStack() as stack:
        stack.callback(blocks[0].ln_1.register_forward_pre_hook(begin).remove)
        for block in blocks:
            stack.callback(block.mlp.register_forward_hook(end).remove)
        yield passes
