"""A labelled set of a few small pictures, in MVTec's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_labelled(
    folder: Path, *, classes: tuple[str, ...] = ("brick", "leaf"), images: int = 10
) -> Path:
    """Write noise with bright squares on every second picture; the squares are the masks."""
    rng = np.random.default_rng(0)
    for name in classes:
        for number in range(images):
            pixels = rng.integers(90, 130, (30, 26, 3), dtype=np.uint8)
            kind = "spot" if number % 2 else "good"
            if kind == "spot":
                mask = np.zeros((30, 26), np.uint8)
                top, left = rng.integers(2, 16, 2)
                mask[top : top + 9, left : left + 9] = 255
                pixels[mask > 0] = rng.integers(180, 255)
                save(folder / name / "ground_truth" / kind / f"{number:03}_mask.png", mask)
            save(folder / name / "test" / kind / f"{number:03}.png", pixels)
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
