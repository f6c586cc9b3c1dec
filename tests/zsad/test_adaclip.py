"""AdaCLIP where no golden case looks: settings, odd sizes, batches of mixed classes, render."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from tiny import tiny_adaclip

from zsad.detectors import DETECTORS
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.detectors.detector import Domain, PatchScores, SentenceTokens
from zsad.trunk import run_blocks

PIXELS = torch.randint(
    0, 256, (8, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
NAMES = ["nut", "a thing with a very long name indeed", "nut", "pcb-1", "x", "nut", "brain", "wood"]
VARIANTS = [("SD", "VL"), ("SD", "L"), ("S", "VL"), ("D", "V"), ("D", "VL"), ("", "")]


def score(detector: AdaClip, rows: list[int]) -> PatchScores:
    texts = detector.encode_text([NAMES[row] for row in rows])
    with torch.inference_mode():
        return detector(PIXELS[rows], texts)


@pytest.mark.parametrize(("kind", "branch"), VARIANTS)
@pytest.mark.parametrize("hsf", [True, False])
def test_a_picture_scores_the_same_in_any_batch(kind: str, branch: str, hsf: bool) -> None:
    detector = tiny_adaclip(prompt_type=kind, prompt_branch=branch, hsf=hsf)
    with torch.inference_mode():
        together = detector(PIXELS, detector.encode_text(NAMES))
    for row in range(8):
        alone = score(detector, [row])
        torch.testing.assert_close(together.maps[row], alone.maps[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.image[row], alone.image[0], rtol=1e-4, atol=1e-5)


def reference_sentences(detector: AdaClip, text: SentenceTokens, dynamic: torch.Tensor):
    """Run every sentence whole, prompts put in block by block, as the official code does."""
    clip, config = detector.backbone.clip, detector.config
    x, length = text.tokens, config.prompt_length
    for index, block in enumerate(clip.transformer.resblocks):
        if index == 0:
            continue
        if index < config.prompt_depth:
            prompts = detector.text_prompter.tokens(index, dynamic, 1).expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], prompts, x[:, 1 + length :]], dim=1)
        x, _ = run_blocks([block], x, causal=True)
    return clip.ln_final(x)[torch.arange(len(x)), text.ends] @ clip.text_projection


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 75),
    depth=st.integers(2, 4),
    name=st.sampled_from(["", "x", "nut", "a thing with a very long name indeed"]),
)
def test_shared_prompts_give_what_whole_sentences_give(length: int, depth: int, name: str) -> None:
    """Also where prompts reach beyond the end of a sentence, and where a block has none."""
    detector = tiny_adaclip(prompt_length=length, prompt_depth=depth)
    dynamic = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(1))
    text = detector.begin(name)
    with torch.inference_mode():
        found = detector.encode_sentences([text, detector.begin("wood")], dynamic)
        expected = reference_sentences(detector, text, dynamic[:1])
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_anchors_of_many_pictures_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = tiny_adaclip()
    texts = detector.encode_text([NAMES[row] for row in (0, 1, 3)])
    dynamic = torch.randn(3, 3, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = detector.anchors(texts, dynamic)
        monkeypatch.setattr("zsad.detectors.adaclip.TEXT_TOKENS_AT_ONCE", 1)
        parts = detector.anchors(texts, dynamic)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_scores_do_not_stick_at_certainty() -> None:
    """The probability of both is 1.0 in float32; their order must survive."""
    detector = tiny_adaclip()
    scores = PatchScores(torch.zeros(2, 6, 6), torch.tensor([25.0, 30.0]))
    first, second = detector.slice_scores(scores, Domain.INDUSTRIAL).tolist()
    assert first < second


@pytest.mark.parametrize("size", [(48, 48), (20, 91), (200, 64)])
def test_maps_are_smoothed_at_the_size_of_the_input(size: tuple[int, int]) -> None:
    detector = tiny_adaclip(blur_sigma=2.0)
    maps = torch.randn(20, 6, 6, generator=torch.Generator().manual_seed(0))
    rendered = detector.render(maps, size, Domain.MEDICAL)
    assert rendered.shape == (20, *size)
    assert 0 <= float(rendered.min()) <= float(rendered.max()) <= 1
    whole = detector.render(maps, (48, 48), Domain.MEDICAL)
    corners = torch.tensor([0, -1])
    torch.testing.assert_close(
        rendered[:, corners][:, :, corners], whole[:, corners][:, :, corners], atol=1e-6, rtol=0
    )
    sharp = torch.nn.functional.interpolate(
        maps[:1, None], (48, 48), mode="bilinear", align_corners=True
    )
    expected = gaussian_filter(sharp[0, 0].sigmoid().numpy(), 2.0)
    torch.testing.assert_close(whole[0], torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_class_names_read_a_hyphen_as_a_space() -> None:
    detector = tiny_adaclip()
    torch.testing.assert_close(detector.begin("pcb-1").tokens, detector.begin("pcb 1").tokens)
    assert not torch.equal(detector.begin("pcb_1").ends, detector.begin("pcb 1").ends)


def test_a_configuration_survives_json() -> None:
    config = AdaClipConfig(levels=(1, 2), prompt_type="S", prompt_branch="V")
    fields = asdict(config) | {"levels": [1, 2], "heat": [0.5, 1.0]}
    assert DETECTORS["adaclip"].read_config(fields) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt_type": "DS"}, "prompt_type must be of 'SD', is 'DS'"),
        ({"prompt_branch": "T"}, "prompt_branch must be of 'VL'"),
        ({"prompt_type": "", "prompt_branch": "V"}, "needs a prompt_type"),
        ({"prompt_depth": 0}, "prompt_depth must be at least 1, is 0"),
        ({"clusters": 0}, "clusters must be at least 1"),
        ({"blur_sigma": -1.0}, "blur_sigma is below 0"),
        ({"levels": (3, 2)}, "levels must ascend"),
        ({"heat": (1.0, 1.0)}, "heat must be"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaClipConfig(**wrong)


def test_what_does_not_fit_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the 4 vision blocks"):
        tiny_adaclip(levels=(2, 5))
    with pytest.raises(ValueError, match="prompt_length 76: a sentence has 75 words"):
        tiny_adaclip(prompt_length=76)
