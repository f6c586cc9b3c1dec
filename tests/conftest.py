"""What tests of more than one room need."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import as_checkpoint, tiny_detector

from zsad.checkpoints import save_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an untrained detector: its maps mean nothing, but they are reproducible."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector(), note="untrained"))
    return path
