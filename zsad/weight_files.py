"""Tensors out of weight files of every kind, without executing anything from them.

Read are safetensors, state dicts as PyTorch pickles them (tensors only), and TorchScript archives
(zsad.torchscript). A safetensors file of our own also describes itself in its metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zsad.torchscript import is_torchscript, read_torchscript

StateDict = Mapping[str, Tensor]

FORMAT = 1
DESCRIPTION = "zsad"
"""Where in a safetensors file's metadata our own description is, as JSON."""
CLIP_PREFIX = "clip."
"""Begins the names of the CLIP's tensors in our own files."""


class WeightsError(Exception):
    """Weights that are missing, broken, or not what the configuration says."""


class WeightFile(NamedTuple):
    """What a weight file holds."""

    content: Mapping[str, Any]
    """Tensors by name; in a pickled file also numbers and further dictionaries."""
    description: dict[str, Any] | None = None
    """What our own files say of themselves."""


def read_weight_file(path: Path) -> WeightFile:
    """Read a file of tensors, whatever its kind and name ending.

    Those of a safetensors file are mapped, not copied: the file must not be overwritten in place
    while they are in use. (To replace it by another, as `write_weight_file` does, is no problem.)

    Raises:
        WeightsError: it is missing or broken, holds code or objects instead of tensors, or was
            written by a later zsad.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: no such file")
    try:
        if _is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                metadata = (file.metadata() or {}).get(DESCRIPTION)
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return WeightFile(content, None if metadata is None else _description(path, metadata))
        if is_torchscript(path):
            return WeightFile(read_torchscript(path))
        with path.open("rb") as file:  # of a path, torch would look at the name
            content = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is incomplete, of "
            "another kind, or holds more than tensors, and nothing in it is ever run"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, no tensors by name")
    return WeightFile(content)


def write_weight_file(path: Path, tensors: StateDict, description: Mapping[str, Any]) -> None:
    """Write tensors and their description as one safetensors file; whole, or not at all."""
    stored = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    metadata = {DESCRIPTION: json.dumps({"format": FORMAT, **description}, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(stored, partial, metadata=metadata)
    partial.replace(path)


def as_state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Check that a file's content is tensors by name, all of them finite, and return them.

    Raises:
        WeightsError: something in it is no tensor, or a value is NaN or infinite.
    """
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"{path} is no state dict: {name} is a {type(tensor).__name__}")
        # One pass and no copy: a sum is finite only if all that it sums up is.
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite():
            raise WeightsError(f"{path} is broken: {name} holds NaN or infinite values")
    return dict(content)


def misfits(tensors: StateDict, expected: StateDict, *, shown: int = 4) -> str | None:
    """Say which tensors are missing, left over, or of another shape than expected; None: none."""
    wrong = [f"{name} is missing" for name in expected if name not in tensors]
    wrong += [f"{name} is left over" for name in tensors if name not in expected]
    wrong += [
        f"{name} is {_shape(tensor)} instead of {_shape(expected[name])}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    more = [f"and {len(wrong) - shown} more"] if len(wrong) > shown else []
    return ", ".join(wrong[:shown] + more) or None


def _shape(tensor: Tensor) -> str:
    return "×".join(str(length) for length in tensor.shape) or "one number"


def count_entries(names: Iterable[str], prefix: str) -> int:
    """Return how many entries a list of modules or of tensors has, by the names of tensors."""
    return len({n.removeprefix(prefix).split(".")[0] for n in names if n.startswith(prefix)})


def split_clip(tensors: StateDict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the tensors of our own file into the method's and the CLIP's."""
    clip = {n.removeprefix(CLIP_PREFIX): t for n, t in tensors.items() if n.startswith(CLIP_PREFIX)}
    return {n: t for n, t in tensors.items() if not n.startswith(CLIP_PREFIX)}, clip


def digest_of_values(tensors: StateDict) -> str:
    """Return a SHA-256 of tensors' names, shapes and values, as 64 hex digits.

    It is the same in every file format and for every stored precision that holds the same values:
    a tensor counts as float16 if that loses nothing, else as float32. Neither does it depend on
    the order of the tensors, nor on the device.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        exact = tensors[name].detach().cpu()
        halved = exact.half()
        lossless = halved is exact or torch.equal(halved.to(exact.dtype), exact)
        values = (halved if lossless else exact.float()).contiguous()
        digest.update(json.dumps([name, list(exact.shape), lossless]).encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """Tell it by its first bytes: the length of a JSON header, and the header's brace."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _description(path: Path, metadata: str) -> dict[str, Any]:
    try:
        description = json.loads(metadata)
        version = description["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is broken: its description is no JSON of ours") from error
    if version != FORMAT:
        raise WeightsError(
            f"{path} has format {version}, this zsad reads {FORMAT}: update zsad, or convert it"
        )
    return dict(description)
