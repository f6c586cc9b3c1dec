"""Golden cases: folders with weights, inputs and what the official code computes from them."""

from __future__ import annotations

import json
import lzma
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load

from zsad.backbone import Backbone, BackboneConfig
from zsad.preprocess import squash, squash_mask

GOLDENS = Path(os.environ.get("ZSAD_GOLDENS", Path(__file__).parents[1] / "goldens"))


def cases(method: str) -> list[Path]:
    """Return the folders `<method>_*`, of which a clone ships at least one."""
    found = sorted(GOLDENS.glob(f"{method}_*"))
    assert found, f"no golden case {method}_* in {GOLDENS}"
    return found


def compare(actual: torch.Tensor, expected: np.ndarray, name: str, atol: float) -> None:
    """Compare shapes and values; 0 means exactly, else 1e-5 of the largest value always passes."""
    assert tuple(actual.shape) == expected.shape, name
    if atol:
        atol = max(atol, 1e-5 * float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol, err_msg=name)


def compare_update(ours: np.ndarray, theirs: np.ndarray, before: np.ndarray, name: str) -> None:
    """Compare what training added to a weight, for the weight itself hardly moves.

    Adam's steps are noise where a gradient is nearly 0, so a hundredth may differ.
    """
    ours, theirs = ours - before, theirs - before
    rounding = 2 * float(np.spacing(np.abs(before).max()))
    limit = 1e-3 * np.abs(theirs).max() + rounding
    assert np.abs(theirs).max() > 10 * rounding, f"{name} shows no training"
    assert np.quantile(np.abs(ours - theirs), 0.99) <= limit, name
    cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.9999, name


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return image_path, mask_path, label and class_name of every picture, in the list's order."""
    if (lines := folder / "meta.jsonl").exists():
        return [json.loads(line) for line in lines.read_text().splitlines() if line.strip()]
    classes = json.loads((folder / "meta.json").read_text())["test"]
    return [
        {
            "image_path": entry["img_path"],
            "mask_path": entry["mask_path"],
            "label": entry["anomaly"],
            "class_name": entry["cls_name"],
        }
        for entries in classes.values()
        for entry in entries
    ]


class GoldenCase:
    """One folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.expected = np.load(folder / "expected.npz")
        self.rows = rows_of(folder)

    def backbone(self, *, image_size: int) -> Backbone:
        arch = {name: self.config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        config = BackboneConfig(architecture=arch, image_size=image_size, **self.how_clip_is_used())
        packed = self.folder / "clip.safetensors.xz"
        plain = self.folder / "clip.safetensors"
        if packed.exists():
            return Backbone(config, load(lzma.decompress(packed.read_bytes())))
        return Backbone(config, load(plain.read_bytes()))

    def how_clip_is_used(self) -> dict[str, Any]:
        """Return activation, and what else is not the default of our configuration."""
        return {
            "activation": "quick_gelu" if self.config["quick_gelu"] else "gelu",
            "mean": tuple(self.config["preprocess"]["mean"]),
            "std": tuple(self.config["preprocess"]["std"]),
        }

    def pixels(self, size: int) -> torch.Tensor:
        """Return uint8 (N, 3, size, size), a picture a row."""
        paths = [self.folder / row["image_path"] for row in self.rows]
        images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        return torch.from_numpy(np.stack([squash(image, size) for image in images]))

    def masks(self, size: int, *, by_area: bool = False) -> torch.Tensor:
        """Return float32 (N, size, size), 1 where anomalous; a normal picture's is all 0."""
        masks = np.zeros((len(self.rows), size, size), np.float32)
        for n, row in enumerate(self.rows):
            if row["label"]:
                stored = np.asarray(Image.open(self.folder / row["mask_path"]).convert("L"))
                masks[n] = squash_mask(stored != 0, size, by_area=by_area)
        return torch.from_numpy(masks)

    def labels(self) -> torch.Tensor:
        """Return int64 (N,)."""
        return torch.tensor([int(row["label"]) for row in self.rows])

    @cached_property
    def class_of_row(self) -> list[int]:
        """The index into config['classes'] of every line."""
        names = [entry["class_name"] for entry in self.config["classes"]]
        return [names.index(row["class_name"]) for row in self.rows]

    def close(self, actual: torch.Tensor, name: str, atol: float) -> None:
        """Compare with an array of expected.npz."""
        compare(actual, self.expected[name], name, atol)
