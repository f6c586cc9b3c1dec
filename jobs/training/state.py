"""Where a training run stands: one file, written after every epoch, from which it can go on.

The file is written under another name and then renamed (or put as one object), so that a run that
is killed finds the state of an epoch, whole. What is random in an epoch depends on its number
alone, therefore no generator's state is in it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from io_adapters import storage

STATE = "state.pt"
FORMAT = 1
StateDict = dict[str, Tensor]


class StateError(Exception):
    """A state that cannot be gone on from; the message names the file and what to do."""


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """What a run needs to go on after an epoch, in plain values and CPU tensors."""

    stage: int = 0
    """The stage under way, from 0."""
    epoch: int = 0
    """How many of its epochs are done."""
    finished: list[StateDict] = field(default_factory=list)
    """What the earlier stages trained."""
    trained: StateDict | None = None
    """What this stage has trained so far; None before its first epoch."""
    optimiser: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    best: StateDict | None = None
    """What the best epoch so far had trained; None without held-out images."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """A record an epoch: stage, epoch, losses, held-out numbers, seconds."""

    def next_stage(self, result: StateDict) -> None:
        """End the stage under way with what it trained."""
        self.finished.append(result)
        self.stage, self.epoch = self.stage + 1, 0
        self.trained = self.optimiser = self.scheduler = self.best = None


def save_state(output: str, state: TrainingState) -> None:
    """Write the state, replacing the last one at once."""
    buffer = io.BytesIO()
    stored = {item.name: getattr(state, item.name) for item in fields(state)}
    torch.save({"format": FORMAT, **stored}, buffer)
    storage.put_bytes(storage.join(output, STATE), buffer.getvalue())


def load_state(output: str) -> TrainingState:
    """Read the state of a run; a new one where there is none. No code from the file is executed.

    Raises:
        StateError: the file is broken, or of another version.
    """
    uri = storage.join(output, STATE)
    if not storage.exists(uri):
        return TrainingState()
    try:
        stored = torch.load(
            io.BytesIO(storage.read_bytes(uri)), map_location="cpu", weights_only=True
        )
        version = stored.pop("format")
        if version == FORMAT:
            return TrainingState(**stored)
    except Exception as error:
        raise StateError(
            f"{uri} cannot be read ({type(error).__name__}): remove it to train from the start"
        ) from error
    raise StateError(f"{uri} has format {version}, this zsad reads {FORMAT}: remove it, or update")
