"""Shim until zsad.backbone.load_clip lands."""

from __future__ import annotations

import hashlib
from pathlib import Path

from zsad.backbone import BackboneConfig, StateDict
from zsad.checkpoints import load_checkpoint


def load_clip(source: str) -> tuple[BackboneConfig, StateDict]:
    checkpoint = load_checkpoint(Path(source))
    return checkpoint.backbone, checkpoint.clip


def digest_of_clip(tensors: StateDict) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].float().numpy().tobytes())
    return digest.hexdigest()
