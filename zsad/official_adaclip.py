"""Checkpoints in the format of AdaCLIP's official code (github.com/caoyunkang/AdaCLIP).

One `.pth` with a flat state dict of the trained tensors. Their names and shapes tell the prompts'
type, branch, depth and length, and how many levels are scored. They do not tell the CLIP, the
resolution, or how features are fused: those were arguments of the program that trained them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zsad.backbone import OPENAI_ARCHITECTURE, BackboneConfig
from zsad.weight_files import (
    StateDict,
    WeightsError,
    as_state_dict,
    count_entries,
    read_weight_file,
)

PREFIX = "clip_model."
"""Begins every name: what the official trainer calls the model."""
PROMPTERS = {"V": "visual_prompter.static_prompts.", "L": "text_prompter.static_prompts."}
"""Where each branch, vision and language, keeps its static prompts, one a block."""
GENERATOR = "dynamic_visual_prompt_generator.head."
"""One linear layer a prompt token."""
UNTOLD = {"prompt_branch": "V", "prompt_depth": 4, "prompt_length": 5}
"""Where the tensors do not tell. The official code can run dynamic prompts alone in "V" only."""
SIDE = 518
"""Of the pictures that the official code scores."""


@cache
def used() -> BackboneConfig:
    """Return how the official code runs CLIP: OpenAI's weights with exact GELU.

    (method/custom_clip.py)
    """
    return BackboneConfig(
        architecture=OPENAI_ARCHITECTURE,
        activation="gelu",
        image_size=SIDE,
        position_resize="bicubic",
    )


class OfficialCheckpoint(NamedTuple):
    """What a file holds, and what follows from it."""

    backbone: BackboneConfig
    method_config: dict[str, Any]
    tensors: dict[str, Tensor]


def read_official(
    path: Path,
    *,
    clip: BackboneConfig | None = None,
    image_size: int = SIDE,
    prompt_branch: str | None = None,
    prompt_depth: int | None = None,
    hsf: bool = True,
    clusters: int = 20,
) -> OfficialCheckpoint:
    """Read a `.pth`. That every tensor is there and fits, the detector checks.

    Args:
        path: the file.
        clip: the CLIP it belongs to; default: OpenAI's ViT-L-14-336. Only its architecture
            counts: activation and normalisation are the official code's.
        image_size: side R of the input in training.
        prompt_branch: "", "V", "L" or "VL", of a file with dynamic prompts alone, which does not
            say it; default: "V".
        prompt_depth: prompted blocks, of such a file; default: 4.
        hsf: whether hybrid semantic fusion was on.
        clusters: of the fusion.

    Raises:
        WeightsError: the file is missing, broken or something else, or says otherwise.
        ValueError: the CLIP cannot take images of that size.
    """
    tensors = _read_tensors(path)
    if not (levels := count_entries(tensors, "patch_token_layer.head.")):
        raise WeightsError(f"{path} is no official AdaCLIP checkpoint: it has no patch_token_layer")
    backbone = replace(
        used(),
        architecture=clip.architecture if clip else OPENAI_ARCHITECTURE,
        image_size=image_size,
    )
    step = backbone.model_config()["vision_cfg"]["layers"] // levels
    told = _prompts(tensors)
    for name, said in (("prompt_branch", prompt_branch), ("prompt_depth", prompt_depth)):
        if said is not None and said != told.setdefault(name, said):
            raise WeightsError(f"{path}: its tensors say {name} {told[name]!r}, not {said!r}")
    return OfficialCheckpoint(
        backbone=backbone,
        method_config={
            "levels": [step * (n + 1) for n in range(levels)],
            **UNTOLD,
            **told,
            "hsf": hsf,
            "clusters": clusters,
        },
        tensors=tensors,
    )


def write_official(path: Path, tensors: StateDict) -> None:
    """Write a file that the official `test.py` loads.

    Args:
        path: its folder is made if it is not there.
        tensors: names as in `zsad.detectors.adaclip.AdaClip`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({PREFIX + name: tensor for name, tensor in tensors.items()}, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors, named as in the detector."""
    content, _ = read_weight_file(path)
    left_over = [name for name in content if not str(name).startswith(PREFIX)]
    if len(left_over) == len(content):
        raise WeightsError(
            f"{path} was not written by zsad, and is no official AdaCLIP checkpoint: none of its "
            f"{len(content)} names begins with {PREFIX} (of AA-CLIP's, name the folder)"
        )
    if left_over:
        raise WeightsError(
            f"{path} is no official AdaCLIP checkpoint: {left_over[0]} is left over, its names "
            f"begin with {PREFIX}"
        )
    return {n.removeprefix(PREFIX): tensor for n, tensor in as_state_dict(content, path).items()}


def _prompts(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a file's tensors tell of its prompts, as arguments of `AdaClipConfig`."""
    static = {b: [t for n, t in tensors.items() if n.startswith(p)] for b, p in PROMPTERS.items()}
    dynamic = any(name.startswith("dynamic_") for name in tensors)
    told: dict[str, Any] = {"prompt_type": "S" * any(static.values()) + "D" * dynamic}
    if any(static.values()):
        first = [*static["V"], *static["L"]][0]
        told["prompt_branch"] = "".join(branch for branch, prompts in static.items() if prompts)
        told["prompt_depth"] = max(len(prompts) for prompts in static.values())
        told["prompt_length"] = first.shape[0] if first.ndim else 0
    elif dynamic:
        told["prompt_length"] = count_entries(tensors, GENERATOR)
    else:
        told["prompt_branch"] = ""
    return told
