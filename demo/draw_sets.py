"""Draw the labelled sets that the embedded model is trained, chosen and tested on.

    python demo/draw_sets.py --output build/tiny/sets

Each set is a folder with pictures, masks and `meta.jsonl`, the list format of AA-CLIP's code. What
is in which split, `splits.py` says; every picture depends on the seed and its number alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from procedural import make_sample
from splits import Split
from volumes import brain_volume, slices_of

SIZE = 128
SLICES = 5
"""At most so many of a volume."""


class Drawn(NamedTuple):
    """One picture of a set."""

    name: str
    image: np.ndarray
    """(H, W) or (H, W, 3) uint8."""
    mask: np.ndarray
    """(H, W) bool."""
    class_name: str


def pictures(number: int, *, split: Split, medical: bool, seed: int) -> list[Drawn]:
    """Draw picture `number` of a stream."""
    rng = np.random.default_rng([seed, medical, number])
    sample = make_sample(rng, SIZE, split, medical=float(medical))
    return [Drawn(f"{number:05d}", sample.image, sample.mask, sample.class_name)]


def brain_slices(number: int, *, split: Split, seed: int) -> list[Drawn]:
    """Draw volume `number` and take slices of it; every second volume has a lesion."""
    volume, mask = brain_volume(
        np.random.default_rng([seed, number]), split, lesion=number % 2 == 1
    )
    return [
        Drawn(f"{number:03d}_{n}", part.tone, part.mask, "brain")
        for n, part in enumerate(slices_of(volume, mask, count=SLICES))
    ]


def write_set(folder: Path, drawn: Iterator[list[Drawn]]) -> int:
    """Write pictures, masks and their list; return how many pictures there are."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = [_write(folder, picture) for pictures in drawn for picture in pictures]
    (folder / "meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def _write(folder: Path, picture: Drawn) -> dict[str, str | int]:
    row: dict[str, str | int] = {
        "image_path": f"images/{picture.name}.png",
        "label": int(picture.mask.any()),
        "class_name": picture.class_name,
    }
    Image.fromarray(picture.image).save(folder / f"images/{picture.name}.png")
    if picture.mask.any():
        mask_path = f"masks/{picture.name}.png"
        Image.fromarray(picture.mask.astype(np.uint8) * 255).save(folder / mask_path)
        row["mask_path"] = mask_path
    return row


SETS: dict[str, tuple[int, Callable[[int], list[Drawn]]]] = {
    "train_industrial": (2000, partial(pictures, split=Split.TRAIN, medical=False, seed=11)),
    "train_medical": (2000, partial(pictures, split=Split.TRAIN, medical=True, seed=11)),
    "choose_industrial": (200, partial(pictures, split=Split.CHOOSE, medical=False, seed=12)),
    "choose_medical": (200, partial(pictures, split=Split.CHOOSE, medical=True, seed=12)),
    "test_industrial": (600, partial(pictures, split=Split.TEST, medical=False, seed=13)),
    "test_brain": (100, partial(brain_slices, split=Split.TEST, seed=13)),
}
"""Name → how many pictures (of brains: volumes), and how one is drawn."""


def main() -> None:
    """Parse the command line and write the sets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--share", type=float, default=1.0, help="draw only this part of each set")
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        for name in arguments.sets:
            count, draw = SETS[name]
            drawn = pool.map(draw, range(max(2, round(count * arguments.share))), chunksize=8)
            print(f"{name}: {write_set(arguments.output / name, drawn)} pictures", flush=True)


if __name__ == "__main__":
    main()
