"""Trained weights on disk: our safetensors file, and what official code of the methods writes.

Our file is self-describing: its metadata name the method, the CLIP it was trained on (with
activation, resolution, normalisation and a digest of its values) and the score constants; a small
CLIP can be inside. Nothing is executed on loading, and every tensor must fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zsad import official_aaclip, official_adaclip
from zsad.backbone import BackboneConfig
from zsad.weight_files import (
    CLIP_PREFIX,
    StateDict,
    WeightsError,
    as_state_dict,
    digest_of_values,
    read_weight_file,
    split_clip,
    write_weight_file,
)
from zsad.weights import embedded

CLIP_METHOD = "clip"
"""Stands in the place of a method in a file that holds a CLIP and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A method's trained weights and what is needed to use them."""

    method: str
    """Key of the detector registry: "aaclip", "adaclip"; or "clip", see `save_clip`."""
    backbone: BackboneConfig
    method_config: dict[str, Any]
    """Keyword arguments of the method's own configuration."""
    tensors: Mapping[str, Tensor]
    """The method's tensors, named as in its module."""
    clip: Mapping[str, Tensor] | None = None
    """The CLIP's tensors, where the checkpoint brings its own; else it runs on OpenAI's."""
    clip_digest: str | None = None
    """`digest_of_values` of the CLIP it was trained on; None where nobody knows, as of official
    checkpoints. It runs on no other."""
    note: str | None = None
    """What a reader of a report must know of this model."""
    training: Mapping[str, Any] | None = None
    """Provenance: data, recipe, seed, versions."""
    digest: str = ""
    """SHA-256 of the file(s) it was loaded from; empty for one that was never stored."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one safetensors file; a CLIP inside it gets its digest."""
    clip = checkpoint.clip or {}
    description = {
        "method": checkpoint.method,
        "backbone": checkpoint.backbone.to_dict(),
        "method_config": checkpoint.method_config,
        "clip_digest": digest_of_values(clip) if clip else checkpoint.clip_digest,
        "note": checkpoint.note,
        "training": checkpoint.training,
    }
    named = {CLIP_PREFIX + name: tensor for name, tensor in clip.items()}
    write_weight_file(path, {**checkpoint.tensors, **named}, description)


def save_clip(
    path: Path,
    config: BackboneConfig,
    tensors: StateDict,
    *,
    note: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a CLIP alone, with its configuration: a source for `zsad.backbone.load_clip`.

    Args:
        path: a safetensors file.
        config: how it was trained; `image_size` is the one that its positional grid is made for.
        tensors: its weights, in any precision.
        note: what a user must know of it.
        training: provenance.
    """
    checkpoint = Checkpoint(
        method=CLIP_METHOD,
        backbone=config,
        method_config={},
        tensors={},
        clip=tensors,
        note=note,
        training=training,
    )
    save_checkpoint(path, checkpoint)


def load_checkpoint(path: str | Path, *, clip: BackboneConfig | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: our safetensors file, the name of an embedded model ("tiny"), or an official
            checkpoint: a folder of AA-CLIP's, or a file of AdaCLIP's.
        clip: the CLIP that an official checkpoint belongs to, which does not say so itself.

    Raises:
        WeightsError: nothing is there, or it is broken, foreign, or of another format version.
    """
    path = embedded().get(str(path), Path(path))
    if path.is_dir():
        return load_official(path, clip=clip)
    if not path.exists():
        names = ", ".join(embedded()) or "none"
        raise WeightsError(f"no checkpoint at {path}; models inside this package: {names}")
    content, described = read_weight_file(path)
    if described is None:
        return load_official(path, clip=clip)
    tensors, own_clip = split_clip(as_state_dict(content, path))
    try:
        return Checkpoint(
            method=described["method"],
            backbone=BackboneConfig.from_dict(described["backbone"]),
            method_config=dict(described["method_config"]),
            tensors=tensors,
            clip=own_clip or None,
            clip_digest=described.get("clip_digest"),
            note=described["note"],
            training=described["training"],
            digest=digest_of([path]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} is broken: its description: {error!r}") from error


def is_official(path: str | Path) -> bool:
    """Tell whether something is there that is not in our format, and so does not name its CLIP.

    Raises:
        WeightsError: it is a file and cannot be read.
    """
    path = Path(path)
    return path.is_dir() or (path.is_file() and read_weight_file(path).description is None)


def load_official(path: Path, *, clip: BackboneConfig | None = None, **said: Any) -> Checkpoint:
    """Read a checkpoint that official code wrote.

    Args:
        path: a folder of AA-CLIP's, or a file of AdaCLIP's.
        clip: the CLIP that it belongs to, which it does not say itself.
        said: what else it does not say: further arguments of `read_official` in
            `zsad.official_aaclip` for a folder, in `zsad.official_adaclip` for a file.

    Raises:
        WeightsError: a file is missing, broken, or something else, or does not go with the CLIP.
    """
    load = _load_aaclip if path.is_dir() else _load_adaclip
    try:
        return load(path, clip=clip, **said)
    except ValueError as error:
        raise WeightsError(
            f"{path}: {error}; name the size it was trained at to jobs/convert_checkpoint.py"
        ) from error


def _load_aaclip(folder: Path, **said: Any) -> Checkpoint:
    official = official_aaclip.read_official(folder, **said)
    return Checkpoint(
        method="aaclip",
        backbone=official.backbone,
        method_config=official.method_config,
        tensors=official.tensors,
        training={"code": "official", "epochs": official.epochs},
        digest=digest_of(official.files),
    )


def _load_adaclip(path: Path, **said: Any) -> Checkpoint:
    official = official_adaclip.read_official(path, **said)
    return Checkpoint(
        method="adaclip",
        backbone=official.backbone,
        method_config=official.method_config,
        tensors=official.tensors,
        training={"code": "official"},
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
