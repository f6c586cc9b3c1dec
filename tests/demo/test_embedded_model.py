"""The model that ships finds kinds of defect it never saw, on things it never saw.

A small part of the test of its card (zsad/weights/README.md), with a little room below the card's
bounds for the few pictures. All of it: `make evaluate-tiny`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from draw_sets import Drawn, brain_slices, pictures
from splits import Split

from zsad.checkpoints import load_checkpoint
from zsad.detectors import Detector, Domain, load_detector
from zsad.metrics import PixelCounts, rank_images
from zsad.preprocess import squash
from zsad.weights import embedded

SEED = 99  # not the one of the card's test


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(Path("tiny"))[0]


@torch.inference_mode()
def metrics(detector: Detector, drawn: list[Drawn], domain: Domain) -> dict[str, float]:
    side, names = detector.backbone_config.image_size, sorted({one.class_name for one in drawn})
    anchors = dict(zip(names, detector.encode_text(names), strict=True))
    pixels, scores = PixelCounts(), []
    for one in drawn:
        image = one.image if one.image.ndim == 3 else one.image[..., None]
        batch = torch.from_numpy(squash(image, side)[None].copy())
        found = detector(batch, anchors[one.class_name][None])
        scores += detector.slice_scores(found, domain).tolist()
        pixels.add(detector.render(found.maps, one.mask.shape, domain)[0].numpy(), one.mask)
    images = rank_images(scores, [bool(one.mask.any()) for one in drawn])
    values = {"image": images.auroc(), "pixel": pixels.curve().auroc(), "pro": pixels.aupro()}
    return {name: value for name, value in values.items() if value is not None}


def test_unseen_surfaces_and_defects(detector: Detector) -> None:
    drawn = [pictures(n, split=Split.TEST, medical=False, seed=SEED)[0] for n in range(90)]
    assert len({one.class_name for one in drawn}) >= 8
    found = metrics(detector, drawn, Domain.INDUSTRIAL)
    assert found["image"] > 0.85
    assert found["pixel"] > 0.90
    assert found["pro"] > 0.70


def test_unseen_lesions_of_warped_brains(detector: Detector) -> None:
    volumes = [brain_slices(n, split=Split.TEST, seed=SEED) for n in range(16)]
    found = metrics(detector, [part for parts in volumes for part in parts], Domain.MEDICAL)
    assert found["image"] > 0.80
    assert found["pixel"] > 0.90
    assert found["pro"] > 0.65


def test_it_is_small_and_says_what_it_is() -> None:
    path = embedded()["tiny"]
    assert path.stat().st_size <= 12e6
    checkpoint = load_checkpoint(path)
    assert checkpoint.clip
    assert checkpoint.note
    assert "Demonstration model" in checkpoint.note
    assert (path.parent / "README.md").is_file()


def test_its_maps_mark_the_place_and_not_the_picture(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    grey = np.full((128, 128, 3), 120, np.uint8) + rng.integers(0, 12, (128, 128, 3), np.uint8)
    spoiled = grey.copy()
    spoiled[80:104, 24:48] = 10
    with torch.inference_mode():
        anchors = detector.encode_text(["sheet"])
        scores = detector(torch.from_numpy(squash(spoiled, 128)[None].copy()), anchors)
        rendered = detector.render(scores.maps, (128, 128), Domain.INDUSTRIAL)[0]
    row, column = divmod(int(rendered.argmax()), 128)
    assert 76 <= row <= 108
    assert 20 <= column <= 52
