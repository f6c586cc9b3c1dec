"""The detectors: one method a file, and the registry that a job chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from zsad.backbone import OPENAI_ARCHITECTURE, Backbone, StateDict, WeightsError, load_clip
from zsad.checkpoints import CLIP_METHOD, Checkpoint, is_official, load_checkpoint
from zsad.detectors.aaclip import AAClip, AAClipConfig, AAClipRule
from zsad.detectors.adaclip import AdaClip, AdaClipConfig, AdaClipRule
from zsad.detectors.detector import ClassText, Detector, Domain, PatchScores, ScoreRule
from zsad.weight_files import misfits

__all__ = [
    "DETECTORS",
    "ClassText",
    "Detector",
    "Domain",
    "PatchScores",
    "ScoreRule",
    "build_detector",
    "check_checkpoint",
    "complete_checkpoint",
    "find_clip",
    "load_detector",
    "score_rule",
]


class Method(NamedTuple):
    """How a method becomes a detector."""

    read_config: Callable[[Mapping[str, Any]], Any]
    """A checkpoint's `method_config` → the method's own configuration, which has a `heat`."""
    build: Callable[[Backbone, Any], nn.Module]
    rule: Callable[..., ScoreRule]
    """Takes `config`, the method's own, and `side`, of the model's input."""


DETECTORS = {
    "aaclip": Method(AAClipConfig.from_dict, AAClip, AAClipRule),
    "adaclip": Method(AdaClipConfig.from_dict, AdaClip, AdaClipRule),
}


def load_detector(path: str | Path, *, clip: str | None = None) -> tuple[Detector, Checkpoint]:
    """Load a checkpoint and the CLIP it belongs to.

    Args:
        path: our safetensors file, the name of an embedded model ("tiny"), or a folder or file
            in the format of a method's official code.
        clip: a source for `zsad.backbone.load_clip`, instead of what the checkpoint brings or
            names.

    Raises:
        WeightsError: something is missing, broken, or does not fit.
    """
    checkpoint = complete_checkpoint(path, clip=clip)
    try:
        return build_detector(checkpoint), checkpoint
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def complete_checkpoint(path: str | Path, *, clip: str | None = None) -> Checkpoint:
    """Read a checkpoint and put the CLIP inside that it runs on; arguments as `load_detector`.

    Raises:
        WeightsError: something is missing or broken, or the CLIP is not the right one.
    """
    trained_on = load_clip(clip)[0] if clip and is_official(path) else None
    checkpoint = load_checkpoint(path, clip=trained_on)
    try:
        _method(checkpoint)
        return replace(checkpoint, clip=find_clip(checkpoint, clip))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def find_clip(checkpoint: Checkpoint, source: str | None) -> StateDict:
    """Return the tensors of the CLIP that a checkpoint runs on, sure to be the right ones.

    Args:
        checkpoint: with or without a CLIP inside.
        source: for `load_clip`; None: the one inside, or else OpenAI's.

    Raises:
        WeightsError: there is none, or it is not the one that the checkpoint was trained on.
    """
    if source is None:
        if checkpoint.clip is not None:
            return checkpoint.clip
        architecture = checkpoint.backbone.architecture
        if architecture != OPENAI_ARCHITECTURE:
            trained_on = architecture if isinstance(architecture, str) else "a CLIP of its own"
            raise WeightsError(
                f"it was trained on {trained_on}, not OpenAI's {OPENAI_ARCHITECTURE}, and has none "
                "inside: name that CLIP with --clip"
            )
    return load_clip(source or "openai", checkpoint.backbone, digest=checkpoint.clip_digest)[1]


def build_detector(checkpoint: Checkpoint) -> Detector:
    """Build a detector from a checkpoint with CLIP inside; in eval mode, nothing to train.

    Raises:
        WeightsError: a tensor is missing, left over, or of another shape.
    """
    module = _assemble(checkpoint)
    _check_fit(module, checkpoint)
    module.load_state_dict(checkpoint.tensors, strict=False)  # CLIP's own are there already
    return cast(Detector, module.eval().requires_grad_(False))


def score_rule(checkpoint: Checkpoint) -> ScoreRule:
    """Return what makes maps and numbers of the scores of a checkpoint's detector.

    It is as small as the method's configuration, and needs neither weights nor a CLIP.
    """
    config = _read_config(checkpoint)
    return _method(checkpoint).rule(config=config, side=checkpoint.backbone.image_size)


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Check that a method's tensors fit its configuration and the CLIP's sizes.

    Nothing is computed and no weights of a CLIP are needed.

    Raises:
        WeightsError: a tensor is missing, left over, or of another shape.
    """
    with torch.device("meta"):
        module = _assemble(replace(checkpoint, clip=None))
    _check_fit(module, checkpoint)


def _assemble(checkpoint: Checkpoint) -> nn.Module:
    """Build the method on its CLIP, without its own weights."""
    config = _read_config(checkpoint)
    try:
        return _method(checkpoint).build(Backbone(checkpoint.backbone, checkpoint.clip), config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the configuration of {checkpoint.method}: {error}") from error


def _read_config(checkpoint: Checkpoint) -> Any:
    try:
        return _method(checkpoint).read_config(checkpoint.method_config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the configuration of {checkpoint.method}: {error}") from error


def _method(checkpoint: Checkpoint) -> Method:
    if checkpoint.method == CLIP_METHOD:
        raise WeightsError("this is a CLIP alone, no detector: pass it with --clip")
    if checkpoint.method not in DETECTORS:
        raise WeightsError(f"no method {checkpoint.method!r}; there are {sorted(DETECTORS)}")
    return DETECTORS[checkpoint.method]


def _check_fit(module: nn.Module, checkpoint: Checkpoint) -> None:
    expected = {n: t for n, t in module.state_dict().items() if not n.startswith("backbone.")}
    if wrong := misfits(checkpoint.tensors, expected):
        raise WeightsError(f"the weights do not fit {checkpoint.method} on this CLIP: {wrong}")
