"""Kinds of defect and lesion, with exact masks: a region, and what happens to the picture inside.

Regions (where) and changes (what) are drawn independently, so that a few dozen small functions
give hundreds of looks. A model must not learn one of them; it must learn "this is not like the
rest of the picture". Each kind belongs to one split, see `splits.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from changes import (
    Change,
    burn,
    flatten,
    foreign,
    groove,
    hole,
    magnified,
    missing,
    paint,
    shade,
    shifted,
    smear,
    soften,
    tinted,
    turned,
    twisted,
)
from fields import Rng, draw_polygon
from lesions import cavity, foci, implant, mass, oedema, ring
from regions import (
    Region,
    blob,
    centre_of,
    corners_of,
    crack,
    discs,
    element,
    piece,
    scratch,
    specks,
)
from scenes import MEDICAL, Scene
from splits import of_split
from textures import IRREGULAR

VISIBLE, VISIBLE_LESION = 0.1, 0.15
"""Mean change of the strongest channel; less is a defect that nobody can see."""
SMALLEST, SMALLEST_LESION, LARGEST = 0.003, 0.004, 0.3
"""Share of the picture."""


class Kind(NamedTuple):
    """A kind of defect: any of the regions with any of the changes."""

    regions: tuple[Region, ...]
    changes: tuple[Change, ...]


DEFECTS = {
    "stain": Kind((blob, blob, specks), (paint, shade)),
    "missing piece": Kind((piece, element, blob), (missing,)),
    "replaced part": Kind((element, piece), (paint, shade)),
    "scratch": Kind((scratch,), (paint, shade, missing, groove)),
    "wear": Kind((blob, piece), (soften, flatten)),
    "wrong scale": Kind((blob, piece), (magnified,)),
    "dent": Kind((blob,), (twisted, groove)),
    "misplaced": Kind((piece, blob), (turned, shifted)),
    "smear": Kind((blob,), (smear,)),
    "mould": Kind((specks,), (paint,)),
    "crack": Kind((crack,), (paint, shade, missing, groove)),
    "contamination": Kind((blob, piece), (foreign,)),
    "burn": Kind((blob,), (burn,)),
    "hole": Kind((blob,), (hole,)),
    "discolouration": Kind((element, piece, blob), (tinted,)),
}
STRUCTURED = ("misplaced",)
"""Kinds that show on a pattern only: a turned piece of stone looks like stone."""
LESIONS = {
    "mass": Kind((blob,), (mass,)),
    "shadow": Kind((blob,), (shade,)),
    "artefact": Kind((piece, blob), (implant,)),
    "line": Kind((scratch,), (mass, shade)),
    "calcification": Kind((specks,), (mass,)),
    "ring": Kind((blob,), (ring,)),
    "cavity": Kind((blob,), (cavity,)),
    "oedema": Kind((blob,), (oedema,)),
    "foci": Kind((discs,), (foci,)),
}


def add_defects(rng: Rng, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with one to three defects, (R, R, 3), and their exact mask, (R, R)."""
    image = scene.image
    mask = np.zeros(image.shape[:2], dtype=bool)
    kind = draw_kind(rng, scene)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        image, new = _add_defect(rng, scene._replace(image=image), kind)
        mask |= new
    return image, mask


def draw_kind(rng: Rng, scene: Scene) -> Kind:
    """Choose a kind of the scene's split that shows on it."""
    table = LESIONS if scene.domain == MEDICAL else DEFECTS
    names = of_split(table, scene.split)
    if scene.class_name in IRREGULAR or scene.elements is None:
        names = [name for name in names if name not in STRUCTURED]
    return table[str(rng.choice(names))]


def _add_defect(rng: Rng, scene: Scene, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Try random looks until one is visible and of reasonable size; the last resort always is."""
    medical = scene.domain == MEDICAL
    smallest, visible = (SMALLEST_LESION, VISIBLE_LESION) if medical else (SMALLEST, VISIBLE)
    for _ in range(8):
        region = kind.regions[int(rng.integers(len(kind.regions)))]
        change = kind.changes[int(rng.integers(len(kind.changes)))]
        cover = region(rng, scene) * scene.inside
        mask = cover > 0.4
        if not smallest < mask.mean() < LARGEST:
            continue
        image = _blend(scene.image, change(rng, scene, cover), cover)
        if np.abs(image[mask] - scene.image[mask]).max(axis=1).mean() > visible:
            return image, mask
    y, x = np.clip(centre_of(rng, scene), -0.8, 0.8)
    cover = draw_polygon(len(scene.image), corners_of(rng, (y, x), 0.15, 6))
    opposite = np.float32(scene.image[cover > 0.4].mean() < 0.5)
    image = _blend(scene.image, np.full_like(scene.image, opposite), cover)
    return image, cover > 0.4


def _blend(image: np.ndarray, changed: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(image + (changed - image) * cover[..., None], 0, 1))
