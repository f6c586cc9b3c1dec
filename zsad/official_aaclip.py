"""Checkpoints in the format of AA-CLIP's official code (github.com/Mwxinnn/AA-CLIP).

A folder with `text_adapter.pth` and one `image_adapter_N.pth` per epoch N. They hold adapters and
the optimiser's state, and say nothing of the CLIP, the resolution, the levels, or the adapters'
weights: those were arguments of the program that trained them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from zsad.backbone import OPENAI_ARCHITECTURE, BackboneConfig
from zsad.weight_files import (
    StateDict,
    WeightsError,
    as_state_dict,
    count_entries,
    read_weight_file,
)

RATES = {"text": 1e-5, "image": 5e-4}
BETAS = (0.5, 0.999)
"""Of the official optimisers (train.py)."""
SIDE = 518
"""Of the pictures that the official code scores."""


@cache
def used() -> BackboneConfig:
    """Return how the official code runs CLIP: OpenAI's weights with exact GELU (model/clip.py)."""
    return BackboneConfig(architecture=OPENAI_ARCHITECTURE, activation="gelu", image_size=SIDE)


class OfficialCheckpoint(NamedTuple):
    """What a folder holds, and what follows from it."""

    backbone: BackboneConfig
    method_config: dict[str, Any]
    tensors: dict[str, Tensor]
    epochs: dict[str, int]
    """Finished epochs of "text" and "image"."""
    files: list[Path]


def read_official(
    folder: Path,
    *,
    clip: BackboneConfig | None = None,
    epoch: int | None = None,
    image_size: int = SIDE,
) -> OfficialCheckpoint:
    """Read `text_adapter.pth` and an `image_adapter_N.pth`.

    Args:
        folder: where both are.
        clip: the CLIP they belong to; default: OpenAI's ViT-L-14-336. Only its architecture
            counts: activation and normalisation are the official code's.
        epoch: N; default: the highest.
        image_size: side R of the input in training.

    Raises:
        WeightsError: a file is missing, broken, or something else.
        ValueError: the CLIP cannot take images of that size.
    """
    text, images = folder / "text_adapter.pth", _image_adapters(folder)
    if not text.is_file() or not images:
        raise WeightsError(
            f"{folder} holds no official AA-CLIP checkpoint: text_adapter.pth and "
            "image_adapter_N.pth are expected (of AdaCLIP's, name the file)"
        )
    if epoch is not None and epoch not in images:
        raise WeightsError(f"{folder} has no image_adapter_{epoch}.pth, but of {sorted(images)}")
    image = images[max(images) if epoch is None else epoch]
    text_tensors, text_epoch = _read_part(text, "text_adapter")
    image_tensors, image_epoch = _read_part(image, "image_adapter")
    tensors = text_tensors | image_tensors
    if not (levels := count_entries(tensors, "image_adapter.seg_proj.")):
        raise WeightsError(f"{image} is no official AA-CLIP image_adapter: it has no seg_proj")
    backbone = replace(
        used(),
        architecture=clip.architecture if clip else OPENAI_ARCHITECTURE,
        image_size=image_size,
    )
    blocks = backbone.model_config()["vision_cfg"]["layers"]
    return OfficialCheckpoint(
        backbone=backbone,
        method_config={
            "levels": [blocks * (n + 1) // levels for n in range(levels)],
            "text_adapt_until": count_entries(tensors, "text_adapter.") - 1,  # the projection
            "image_adapt_until": count_entries(tensors, "image_adapter.layer_adapters."),
            "relu": "image_adapter.det_proj.fc.0.weight" in tensors,
        },
        tensors=tensors,
        epochs={"text": text_epoch, "image": image_epoch},
        files=[text, image],
    )


def write_official(folder: Path, tensors: StateDict, epochs: Mapping[str, int]) -> list[Path]:
    """Write a folder that the official `test.py` and `train.py` load.

    Its optimisers have just begun: our files do not keep an optimiser's state.

    Args:
        folder: made if it is not there.
        tensors: names as in `zsad.detectors.aaclip.AAClip`.
        epochs: as in `OfficialCheckpoint`; "image" also numbers the file.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "text": folder / "text_adapter.pth",
        "image": folder / f"image_adapter_{epochs['image']}.pth",
    }
    for part, path in files.items():
        prefix = f"{part}_adapter."
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        weights = [nn.Parameter(tensor) for tensor in own.values()]
        content = {
            "epoch": epochs[part],
            f"{part}_adapter": own,
            f"{part}_optimizer": Adam(weights, lr=RATES[part], betas=BETAS).state_dict(),
        }
        torch.save(content, path)
    return list(files.values())


def _image_adapters(folder: Path) -> dict[int, Path]:
    """Return the files `image_adapter_N.pth` by N."""
    found = {}
    for path in folder.glob("image_adapter_*.pth"):
        if match := re.fullmatch(r"image_adapter_(\d+)", path.stem):
            found[int(match[1])] = path
    return found


def _read_part(path: Path, part: str) -> tuple[dict[str, Tensor], int]:
    """Return one file's adapter, names prefixed with the part's, and its finished epochs."""
    content, _ = read_weight_file(path)
    if not isinstance(content.get(part), dict) or not isinstance(content.get("epoch"), int):
        raise WeightsError(
            f"{path} is no official AA-CLIP {part}: it has {sorted(content)[:4]}, not epoch and "
            f"{part}"
        )
    adapter = as_state_dict(content[part], path)
    return {f"{part}.{name}": tensor for name, tensor in adapter.items()}, content["epoch"]
