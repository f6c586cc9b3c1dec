"""The detectors: one method a file, and the registry that a job chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from zsad.backbone import Backbone, WeightsError, load_weights
from zsad.checkpoints import Checkpoint, load_checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.detector import Detector, Domain, PatchScores

__all__ = ["DETECTORS", "Detector", "Domain", "PatchScores", "build_detector", "load_detector"]


class Method(NamedTuple):
    """How a method becomes a detector."""

    read_config: Callable[[Mapping[str, Any]], Any]
    """A checkpoint's `method_config` → the method's own configuration, which has a `heat`."""
    build: Callable[[Backbone, Any], nn.Module]


DETECTORS = {"aaclip": Method(AAClipConfig.from_dict, AAClip)}


def load_detector(path: Path, *, clip: str | None = None) -> tuple[Detector, Checkpoint]:
    """Load a checkpoint and the CLIP it belongs to.

    Args:
        path: our safetensors file, or a folder in the format of a method's official code.
        clip: "openai" or a weights file, instead of what the checkpoint brings or names.

    Raises:
        WeightsError: something is missing, broken, or does not fit.
    """
    checkpoint = load_checkpoint(path)
    weights = load_weights(clip or "openai") if clip or not checkpoint.clip else checkpoint.clip
    return build_detector(replace(checkpoint, clip=weights)), checkpoint


def build_detector(checkpoint: Checkpoint) -> Detector:
    """Build a detector from a checkpoint with CLIP inside; in eval mode, nothing to train.

    Raises:
        WeightsError: a tensor is missing, left over, or of another shape.
    """
    if checkpoint.method not in DETECTORS:
        raise WeightsError(f"no method {checkpoint.method!r}; there are {sorted(DETECTORS)}")
    backbone = Backbone(checkpoint.backbone, checkpoint.clip)
    method = DETECTORS[checkpoint.method]
    module = method.build(backbone, method.read_config(checkpoint.method_config))
    named = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors = {name: tensor.to(torch.float32) for name, tensor in checkpoint.tensors.items()}
    try:
        module.load_state_dict({**named, **tensors}, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit {checkpoint.method}: {error}") from error
    return cast(Detector, module.eval().requires_grad_(False))
