"""Tensors out of a TorchScript archive, without running it.

OpenAI published CLIP as TorchScript: a zip of code, pickled attributes and raw tensors. Loading it
with `torch.jit.load` compiles its code and runs the parts that restore attributes, and that code
can write files. Here none of it is compiled or run: the attributes are unpickled with stand-ins
for the archive's classes, every other class is refused, and of the code only the lists of
parameter names are read, as text.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
NAMES_OF_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]", re.MULTILINE
)


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a zip as `torch.jit.save` writes it: with code and constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2] for name in archive.namelist()}
    return {"constants.pkl", "data.pkl"} <= entries and any(e.startswith("code/") for e in entries)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the state dict of an archive's module: parameters and buffers by their full names.

    Raises:
        pickle.UnpicklingError: its attributes hold something else than modules and plain values.
        zipfile.BadZipFile, KeyError, ValueError: the archive is broken or incomplete.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        stored_names: dict[str, set[str]] = {}
        for entry in archive.namelist():
            if entry.startswith(f"{root}/code/") and entry.endswith(".py"):
                module = entry.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
                for name, *lists in NAMES_OF_CLASS.findall(archive.read(entry).decode()):
                    stored_names[f"{module}.{name}"] = set(re.findall(r'"(\w+)"', str(lists)))
        with archive.open(f"{root}/data.pkl") as attributes:
            module_tree = _Attributes(attributes, archive, root).load()
    tensors: dict[str, Tensor] = {}
    _collect(module_tree, "", stored_names, tensors)
    return tensors


class _Module:
    """Stands in for a class of the archive; unpickling fills its `__dict__`."""

    qualified_name = ""


class _Attributes(pickle.Unpickler):
    """Reads modules, tensors and plain values; finds no other class and calls nothing else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Module,), {"qualified_name": f"{module}.{name}"})
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        }
        if (module, name) not in known and module != "torch.jit._pickle":
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a CLIP archive")
        return known.get((module, name), _plain_list)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _device, _count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a {kind} has no place in a CLIP archive")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _plain_list(values: list[Any], *_: Any) -> list[Any]:
    return values


def _collect(
    module: Any, prefix: str, stored_names: dict[str, set[str]], tensors: dict[str, Tensor]
) -> None:
    names = stored_names.get(module.qualified_name, set())
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", stored_names, tensors)
        elif isinstance(value, Tensor) and name in names:
            tensors[prefix + name] = value
