"""What tests of more than one room need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ceph import Rgw, running_rgw
from tiny import as_checkpoint, tiny_detector

from zsad.checkpoints import save_checkpoint

torch.set_num_threads(1)  # a second one waits for the first, where Ray's workers take its core


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an untrained detector: its maps mean nothing, but they are reproducible."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector(), note="untrained"))
    return path


@pytest.fixture(scope="session")
def rgw() -> Iterator[Rgw]:
    """An S3 server; what a test needs of it, it keeps in buckets of its own."""
    with tempfile.TemporaryDirectory(prefix="rgw") as folder, running_rgw(Path(folder)) as server:
        yield server
