"""What `jobs/convert_checkpoint.py` knows of each method's official code."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zsad import official_aaclip, official_adaclip
from zsad.backbone import OPENAI_ARCHITECTURE, BackboneConfig, WeightsError
from zsad.checkpoints import Checkpoint
from zsad.detectors.aaclip import AAClipConfig
from zsad.detectors.adaclip import AdaClipConfig

ADACLIP_ARCHITECTURES = ("ViT-B-16", "ViT-B-32", "ViT-L-14", OPENAI_ARCHITECTURE)
"""What the official AdaCLIP's --model takes, always with OpenAI's weights."""


class OfficialFormat(NamedTuple):
    """How a method's official checkpoints are read and written."""

    title: str
    reading: tuple[str, ...]
    """Options of the job that are arguments of `load_official`."""
    untold: tuple[str, ...]
    """Options of the job that are fields of the method's configuration."""
    writing: frozenset[str]
    """Options of the job that `write` understands."""
    write: Callable[[Checkpoint, Path, Mapping[str, Any]], list[str]]
    """Checkpoint, target and the job's options → what to tell."""

    @property
    def options(self) -> set[str]:
        """All options that mean something for this method."""
        return {*self.reading, *self.untold}


def _write_aaclip(checkpoint: Checkpoint, folder: Path, options: Mapping[str, Any]) -> list[str]:
    if folder.is_file() or folder.suffix == ".safetensors":
        raise WeightsError(f"--output {folder}: name a folder")
    training = checkpoint.training or {}
    converted = training["epochs"] if training.get("code") == "official" else {}
    epochs = {"text": 1, "image": 1} | converted
    epochs["image"] = options.get("epoch", epochs["image"])
    files = official_aaclip.write_official(folder, checkpoint.tensors, epochs)
    config = AAClipConfig.from_dict(checkpoint.method_config)
    return [
        *(str(file) for file in files),
        f"official arguments: --img_size {checkpoint.backbone.image_size}"
        f" --text_adapt_until {config.text_adapt_until}"
        f" --image_adapt_until {config.image_adapt_until}"
        f" --text_adapt_weight {config.text_adapt_weight:g}"
        f" --image_adapt_weight {config.image_adapt_weight:g}" + (" --relu" if config.relu else ""),
        *_limits(
            checkpoint,
            official_aaclip.used(),
            architectures=(OPENAI_ARCHITECTURE,),
            others=[("levels", config.levels, (6, 12, 18, 24))],
        ),
    ]


def _write_adaclip(checkpoint: Checkpoint, path: Path, _: Mapping[str, Any]) -> list[str]:
    if path.is_dir() or path.suffix != ".pth":
        raise WeightsError(f"--output {path}: name a file that ends in .pth")
    official_adaclip.write_official(path, checkpoint.tensors)
    config, backbone = AdaClipConfig.from_dict(checkpoint.method_config), checkpoint.backbone
    step = backbone.model_config()["vision_cfg"]["layers"] // 4
    return [
        str(path),
        f"official arguments: --image_size {backbone.image_size}"
        f" --prompting_depth {config.prompt_depth} --prompting_length {config.prompt_length}"
        f" --prompting_type {shlex.quote(config.prompt_type)}"
        f" --prompting_branch {shlex.quote(config.prompt_branch)}"
        f" --use_hsf {config.hsf} --k_clusters {config.clusters}",
        *_limits(
            checkpoint,
            official_adaclip.used(),
            architectures=ADACLIP_ARCHITECTURES,
            others=[
                ("levels", config.levels, (step, 2 * step, 3 * step, 4 * step)),
                ("blur_sigma", config.blur_sigma, 4.0),
            ],
        ),
        *(
            ["the official code cannot run dynamic prompts alone in the text tower"]
            if config.prompt_type == "D" and config.text_sees_image
            else []
        ),
    ]


def _limits(
    checkpoint: Checkpoint,
    used: BackboneConfig,
    *,
    architectures: tuple[str, ...],
    others: Sequence[tuple[str, Any, Any]],
) -> list[str]:
    """Tell where the official code cannot follow.

    Args:
        checkpoint: ours.
        used: how the official code runs CLIP.
        architectures: those that it can run.
        others: names of what else is fixed there, with our value and the official one.
    """
    backbone = checkpoint.backbone
    clip = backbone.architecture if isinstance(backbone.architecture, str) else "another"
    fixed = [
        ("CLIP", clip, clip if clip in architectures else " or ".join(architectures)),
        *(
            (name.replace("_", " "), getattr(backbone, name), getattr(used, name))
            for name in ("activation", "mean", "std", "position_resize")
        ),
        *others,
    ]
    return [
        f"the official code is written for {name} {theirs}; this checkpoint has {ours}"
        for name, ours, theirs in fixed
        if ours != theirs
    ]


OFFICIAL_FORMATS = {
    "aaclip": OfficialFormat(
        title="AA-CLIP",
        reading=("image_size", "epoch"),
        untold=("levels", "text_adapt_weight", "image_adapt_weight"),
        writing=frozenset({"epoch"}),
        write=_write_aaclip,
    ),
    "adaclip": OfficialFormat(
        title="AdaCLIP",
        reading=("image_size", "prompt_branch", "prompt_depth", "hsf", "clusters"),
        untold=("levels",),
        writing=frozenset(),
        write=_write_adaclip,
    ),
}
