"""Packed matrices compute what the others compute, and are only for inference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU
from tiny import tiny_adaclip, tiny_detector
from torch import nn

from zsad.packing import PackedLinear, can_pack

pytestmark = pytest.mark.skipif(not can_pack(), reason="this PyTorch has no oneDNN")

PIXELS = torch.randint(
    0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
NAMES = ["nut", "a thing with a long name"]
DETECTORS = {"aaclip": tiny_detector, "adaclip": tiny_adaclip}
SIZES = st.integers(1, 40)


@given(rows=SIZES, packed_for=SIZES, inputs=SIZES, outputs=SIZES, bias=st.booleans())
def test_a_layer_of_any_size_is_what_it_was(
    rows: int, packed_for: int, inputs: int, outputs: int, bias: bool
) -> None:
    """Also where there are more or fewer rows than it was laid out for."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    packed = PackedLinear(layer.weight, layer.bias, dtype=torch.float32, rows=packed_for)
    x = torch.randn(2, rows, inputs)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", DETECTORS)
@pytest.mark.parametrize("activation", [nn.GELU, QuickGELU, nn.SELU])
@torch.inference_mode()
def test_a_packed_detector_scores_as_before(method: str, activation: type[nn.Module]) -> None:
    """Also with an activation that has no part in oneDNN's products."""
    detector = DETECTORS[method]()
    clip = detector.backbone.clip
    for block in [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]:
        block.mlp.gelu = activation()
    expected = detector(PIXELS, detector.encode_text(NAMES))
    detector.pack(torch.float32)
    found = detector(PIXELS, detector.encode_text(NAMES))
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.image, expected.image, rtol=1e-5, atol=1e-5)
    assert found.maps.std() > 1


@pytest.mark.parametrize("method", DETECTORS)
@torch.inference_mode()
def test_bf16_rounds_no_more_than_autocast_does(method: str) -> None:
    detector = DETECTORS[method]()
    texts = detector.encode_text(NAMES)
    exact = detector(PIXELS, texts).maps
    with torch.autocast("cpu", torch.bfloat16):
        usual = detector(PIXELS, texts).maps
    detector.pack(torch.bfloat16)
    packed = detector(PIXELS, texts).maps
    assert packed.dtype is torch.float32
    assert 0 < (packed - exact).abs().mean() < 2 * (usual - exact).abs().mean()


@pytest.mark.parametrize(
    ("method", "text"), [("aaclip", torch.float32), ("adaclip", torch.bfloat16)]
)
def test_only_blocks_that_see_slices_round(method: str, text: torch.dtype) -> None:
    """AA-CLIP's anchors are made once and without a slice; AdaCLIP's for each slice."""
    detector = DETECTORS[method]()
    detector.pack(torch.bfloat16)
    clip = detector.backbone.clip
    for tower, dtype in ((clip.visual.transformer, torch.bfloat16), (clip.transformer, text)):
        layers = [m for m in tower.modules() if isinstance(m, PackedLinear)]
        assert len(layers) == 4 * len(tower.resblocks)
        assert {layer.dtype for layer in layers} == {dtype}
    assert not any(isinstance(module, nn.Linear) for module in detector.modules())
    packed = [m.dtype for m in detector.modules() if isinstance(m, PackedLinear)]
    assert torch.float32 in packed, "what is made of the blocks' output"
