"""Golden cases: folders with weights, inputs and what the official code computes from them."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load

from zsad.backbone import Backbone, BackboneConfig

GOLDENS = Path(os.environ.get("ZSAD_GOLDENS", Path(__file__).parents[1] / "goldens"))


def cases(method: str) -> list[Path]:
    """Return the folders `<method>_*`, of which a clone ships at least one."""
    found = sorted(GOLDENS.glob(f"{method}_*"))
    assert found, f"no golden case {method}_* in {GOLDENS}"
    return found


class GoldenCase:
    """One folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.expected = np.load(folder / "expected.npz")
        lines = (folder / "meta.jsonl").read_text().splitlines()
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def backbone(self, *, activation: str = "gelu", image_size: int) -> Backbone:
        arch = {name: self.config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        config = BackboneConfig(
            architecture=arch,
            activation=activation,
            image_size=image_size,
            mean=tuple(self.config["preprocess"]["mean"]),
            std=tuple(self.config["preprocess"]["std"]),
        )
        return Backbone(config, load(lzma.open(self.folder / "clip.safetensors.xz").read()))

    def images(self) -> list[np.ndarray]:
        """Return uint8 (H, W, 3), one a line of meta.jsonl."""
        return [
            np.asarray(Image.open(self.folder / row["image_path"]).convert("RGB"))
            for row in self.rows
        ]

    def class_of_row(self) -> list[int]:
        """Return the index into config['classes'] of every line."""
        names = [entry["class_name"] for entry in self.config["classes"]]
        return [names.index(row["class_name"]) for row in self.rows]
