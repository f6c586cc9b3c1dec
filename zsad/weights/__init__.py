"""The models that come with the package: safetensors files, each with a model card beside it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def embedded() -> dict[str, Path]:
    """Return the files of the models in this package by name, as in `--checkpoint tiny`."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}
