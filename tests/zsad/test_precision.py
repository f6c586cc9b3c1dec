"""bf16 inside the blocks changes no ranking: on ViT-L-14-336 at 518 px, with random weights.

pytest tests/zsad/test_precision.py -m slow
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import pytest
import torch

from zsad.backbone import Backbone, BackboneConfig
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.detectors.detector import Domain, PatchScores
from zsad.packing import can_pack
from zsad.trunk import run_blocks

SIZE = 518


def pictures() -> torch.Tensor:
    """Return uint8 (4, 3, 518, 518): bands with a cut, a bright spot, squares with a hole, tiles.

    The spot has a dark, empty surrounding as scans have it, with many patches nearly alike.
    """
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    bands = (0.5 + 0.4 * np.sin(40 * x + 6 * np.sin(5 * y))) * np.ones((3, 1, 1))
    bands[:, 200:240, 100:180] = 0.05
    spot = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.08) * np.ones((3, 1, 1))
    spot[:, 300:330, 300:340] = 1
    squares = (np.floor(x * 12) + np.floor(y * 12)) % 2 * np.array([0.7, 0.5, 0.3])[:, None, None]
    squares = squares * (1 - 0.6 * (np.hypot(x - 0.3, y - 0.7) < 0.06))
    tiles = np.random.default_rng(0).standard_normal((3, 37, 37)).repeat(14, 1).repeat(14, 2)
    tiles = np.stack([x, y, 1 - x]) + 0.1 * tiles
    drawn = np.stack([bands, spot, squares, tiles]).clip(0, 1)
    return torch.from_numpy((drawn * 255).astype(np.uint8))


class Both(NamedTuple):
    exact: PatchScores
    rounded: PatchScores
    detector: AAClip | AdaClip


@torch.inference_mode()
def scores_of(detector: AAClip | AdaClip, *, bf16: bool) -> PatchScores:
    """Score the pictures in fp32, or in bf16 as a CPU does it: packed, where it can be."""
    if bf16 and can_pack():
        detector = copy.deepcopy(detector)
        detector.pack(torch.bfloat16)
    texts = detector.encode_text(["object"])
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16 and not can_pack()):
        parts = [detector(picture[None], texts) for picture in pictures()]
    return PatchScores(*(torch.cat(values) for values in zip(*parts, strict=True)))


METHODS = {
    "aaclip": lambda backbone: AAClip(backbone, AAClipConfig()),
    "adaclip": lambda backbone: AdaClip(backbone, AdaClipConfig()),
}


@pytest.fixture(scope="module", params=METHODS)
def both(request: pytest.FixtureRequest) -> Both:
    torch.manual_seed(0)
    config = BackboneConfig(architecture="ViT-L-14-336", activation="gelu", image_size=SIZE)
    detector = METHODS[request.param](Backbone(config)).eval().requires_grad_(False)
    return Both(scores_of(detector, bf16=False), scores_of(detector, bf16=True), detector)


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's coefficient of two sets of numbers without ties."""
    ranks = torch.stack([values.flatten().argsort().argsort().double() for values in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_patch_scores_keep_their_order(both: Both) -> None:
    exact, rounded = both.exact.maps, both.rounded.maps
    assert not torch.equal(exact, rounded)
    assert rank_correlation(exact, rounded) >= 0.999
    within = [rank_correlation(a, b) for a, b in zip(exact, rounded, strict=True)]
    assert min(within) >= 0.998, within  # the empty surrounding: differences near the rounding


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("domain", list(Domain))
def test_slice_scores_are_within_a_hundredth_of_their_range(both: Both, domain: Domain) -> None:
    exact = both.detector.slice_scores(both.exact, domain)
    rounded = both.detector.slice_scores(both.rounded, domain)
    assert (exact - rounded).abs().max() <= 1e-2 * (exact.max() - exact.min())


@torch.inference_mode()
def test_only_the_blocks_round() -> None:
    """What goes into the first block, and what is made of the last one's output, is float32."""
    torch.manual_seed(0)
    config = BackboneConfig(architecture="ViT-S-32", activation="gelu", image_size=224)
    backbone = Backbone(config)
    detector = AAClip(backbone, AAClipConfig(levels=(3,), image_adapt_until=3)).eval()
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    anchors = detector.encode_text(["object"])
    embedded = backbone.embed_patches(backbone.normalise(pixels))
    adapted: list[torch.dtype] = []
    for adapter in detector.image_adapter.modules():
        adapter.register_forward_hook(lambda _, __, output: adapted.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backbone.embed_patches(backbone.normalise(pixels)), embedded)
        blocks = backbone.clip.visual.transformer.resblocks
        assert not torch.equal(run_blocks(blocks, embedded)[0], run_in_float32(blocks, embedded))
        scores = detector(pixels, anchors)
    assert set(adapted) == {torch.float32}
    assert scores.maps.dtype == scores.image.dtype == torch.float32


def run_in_float32(blocks: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return run_blocks(blocks, tokens)[0]
