"""What AA-CLIP promises beyond the golden numbers."""

from __future__ import annotations

import pytest
import torch
from tiny import TINY_CLIP, tiny_detector

from zsad.backbone import Backbone, BackboneConfig
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.detectors.detector import Domain, PatchScores

DETECTOR = tiny_detector()
PIXELS = torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8)


@torch.inference_mode()
def test_a_slice_scores_the_same_alone_and_in_any_batch() -> None:
    anchors = DETECTOR.encode_text(["brick", "brain scan", "nut", "nut", "grass"])
    together = DETECTOR(PIXELS, anchors)
    for n in range(len(PIXELS)):
        alone = DETECTOR(PIXELS[n : n + 1], anchors[n : n + 1])
        torch.testing.assert_close(together.maps[n], alone.maps[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.image[n], alone.image[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_anchors_are_unit_columns_and_differ_between_classes() -> None:
    anchors = DETECTOR.encode_text(["brick", "grass"])
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(2, 2))
    assert not torch.allclose(anchors[0], anchors[1], atol=1e-3)


def test_medical_score_is_the_map_s_peak_and_industrial_weighs_in_the_image() -> None:
    maps = torch.zeros(2, 6, 6)
    maps[0, 3, 3] = 100.0
    for domain, image_counts in ((Domain.MEDICAL, False), (Domain.INDUSTRIAL, True)):
        low, high = (
            DETECTOR.slice_scores(PatchScores(maps=maps, image=torch.full((2,), image)), domain)
            for image in (0.1, 0.9)
        )
        assert low[0] > low[1]
        assert bool((high > low).all()) is image_counts


def test_defaults_of_heat_and_range_follow_the_number_of_levels() -> None:
    config = AAClipConfig(levels=(2, 4))
    assert config.heat == (1.0, 31.0)
    assert config.score_range.map == (-199.0, 201.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (4, 2)}, r"\(4, 2\)"),
        ({"image_adapt_weight": 1.5}, "1.5"),
        ({"heat": (2.0, 1.0)}, r"\(2.0, 1.0\)"),
    ],
)
def test_impossible_config_is_refused_with_its_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AAClipConfig(**changes)


def test_level_beyond_the_last_block_is_refused() -> None:
    backbone = Backbone(BackboneConfig(architecture=TINY_CLIP, activation="gelu", image_size=48))
    with pytest.raises(ValueError, match="the 4 vision blocks"):
        AAClip(backbone, AAClipConfig(levels=(6,)))
