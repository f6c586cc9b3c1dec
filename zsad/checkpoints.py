"""Trained weights on disk: our safetensors file, and the folders that official code writes.

Our file is self-describing: its metadata name the method, the CLIP it was trained on (with
activation, resolution and normalisation) and the score constants; a small CLIP can be inside.
Nothing is executed on loading, and every tensor must fit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad.backbone import OPENAI_ARCHITECTURE, BackboneConfig, WeightsError

FORMAT = 1
CLIP_PREFIX = "clip."


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A method's trained weights and what is needed to use them."""

    method: str
    """Key of the detector registry: "aaclip"."""
    backbone: BackboneConfig
    method_config: dict[str, Any]
    """Keyword arguments of the method's own configuration."""
    tensors: Mapping[str, Tensor]
    """The method's tensors, named as in its module."""
    clip: Mapping[str, Tensor] | None = None
    """The CLIP's tensors, where the checkpoint brings its own; else it runs on OpenAI's."""
    note: str | None = None
    """What a reader of a report must know of this model."""
    training: Mapping[str, Any] | None = None
    """Provenance: data, recipe, seed, versions."""
    digest: str = ""
    """SHA-256 of the file(s) it was loaded from; empty for one that was never stored."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one safetensors file."""
    described = {
        "format": FORMAT,
        "method": checkpoint.method,
        "backbone": checkpoint.backbone.to_dict(),
        "method_config": checkpoint.method_config,
        "note": checkpoint.note,
        "training": checkpoint.training,
    }
    clip = {CLIP_PREFIX + name: tensor for name, tensor in (checkpoint.clip or {}).items()}
    tensors = {name: t.detach().contiguous() for name, t in {**checkpoint.tensors, **clip}.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"zsad": json.dumps(described, sort_keys=True)})
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read our safetensors file, or a folder with an official AA-CLIP checkpoint.

    Raises:
        WeightsError: nothing is there, or it is broken, foreign, or of another format version.
    """
    if path.is_dir():
        return _load_official_aaclip(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("zsad")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise WeightsError(f"{path} is no safetensors file ({type(error).__name__})") from error
    if metadata is None:
        raise WeightsError(f"{path} was not written by zsad: its metadata name no method")
    described = json.loads(metadata)
    if described["format"] != FORMAT:
        raise WeightsError(f"{path} has format {described['format']}, this zsad reads {FORMAT}")
    clip = {n.removeprefix(CLIP_PREFIX): t for n, t in tensors.items() if n.startswith(CLIP_PREFIX)}
    return Checkpoint(
        method=described["method"],
        backbone=BackboneConfig.from_dict(described["backbone"]),
        method_config=described["method_config"],
        tensors={name: t for name, t in tensors.items() if not name.startswith(CLIP_PREFIX)},
        clip=clip or None,
        note=described["note"],
        training=described["training"],
        digest=digest_of([path]),
    )


def digest_of(paths: list[Path]) -> str:
    """Return the SHA-256 of the contents of files, in the order given, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _load_official_aaclip(folder: Path) -> Checkpoint:
    """Read `text_adapter.pth` and the `image_adapter_N.pth` of the highest N."""
    text = folder / "text_adapter.pth"
    images = sorted(folder.glob("image_adapter_*.pth"), key=_epoch)
    if not text.is_file() or not images:
        raise WeightsError(
            f"{folder} holds no official AA-CLIP checkpoint: text_adapter.pth and "
            "image_adapter_N.pth are expected"
        )
    tensors = _prefixed(text, "text_adapter") | _prefixed(images[-1], "image_adapter")
    depths = {name: _count(tensors, name) for name in ("text_adapter", *_IMAGE_PARTS)}
    levels = depths["image_adapter.seg_proj"]
    return Checkpoint(
        method="aaclip",
        backbone=BackboneConfig(
            architecture=OPENAI_ARCHITECTURE, activation="gelu", image_size=518
        ),
        method_config={
            "levels": [24 // levels * (n + 1) for n in range(levels)],
            "text_adapt_until": depths["text_adapter"] - 1,
            "image_adapt_until": depths["image_adapter.layer_adapters"],
            "relu": "image_adapter.det_proj.fc.0.weight" in tensors,
        },
        tensors=tensors,
        training={"epoch": _epoch(images[-1]), "code": "official"},
        digest=digest_of([text, images[-1]]),
    )


_IMAGE_PARTS = ("image_adapter.layer_adapters", "image_adapter.seg_proj")


def _epoch(path: Path) -> int:
    match = re.fullmatch(r"image_adapter_(\d+)", path.stem)
    return int(match[1]) if match else -1


def _prefixed(path: Path, part: str) -> dict[str, Tensor]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)[part]
        return {f"{part}.{name}": tensor for name, tensor in stored.items()}
    except Exception as error:
        message = f"{path} is no official AA-CLIP {part} ({type(error).__name__})"
        raise WeightsError(message) from error


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len(
        {name[len(prefix) + 1 :].split(".")[0] for name in tensors if name.startswith(prefix)}
    )
