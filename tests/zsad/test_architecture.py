"""Which CLIP a file holds is read off its tensors; what cannot be run is refused by name."""

from __future__ import annotations

import open_clip
import pytest
import torch
from tiny import TINY_CLIP

from zsad.architecture import (
    VISION_DEFAULTS,
    ClipSizes,
    architecture_of,
    named_model,
    sizes_of_model,
    sizes_of_weights,
    unsupported_parts,
)
from zsad.weight_files import WeightsError


def shapes_of(model: dict) -> dict[str, torch.Tensor]:
    """Return the state dict of an open_clip model, without memory for its values."""
    with torch.device("meta"):
        clip = open_clip.CLIP(model["embed_dim"], model["vision_cfg"], model["text_cfg"])
    return dict(clip.state_dict())


def test_open_clip_s_defaults_are_those_we_know() -> None:
    defaults = vars(open_clip.CLIPVisionCfg())
    assert {name: defaults[name] for name in VISION_DEFAULTS} == VISION_DEFAULTS


@pytest.mark.parametrize("name", ["ViT-L-14-336", "ViT-L-14", "ViT-B-16", "ViT-H-14", "ViT-g-14"])
def test_a_published_model_is_recognised_by_its_shapes(name: str) -> None:
    sizes = sizes_of_weights(shapes_of(named_model(name)), "a file")
    assert sizes == sizes_of_model(named_model(name))
    assert architecture_of(sizes, "a file") == name


def test_models_of_equal_sizes_have_equally_many_heads() -> None:
    heads: dict[ClipSizes, tuple[int, int]] = {}
    for name in open_clip.list_models():
        model = named_model(name)
        if not unsupported_parts(model):
            ours = (model["vision_cfg"].get("head_width", 64), model["text_cfg"]["heads"])
            assert heads.setdefault(sizes_of_model(model), ours) == ours, name
    assert len(heads) > 20


def test_an_unknown_model_has_heads_of_64_channels() -> None:
    vision = TINY_CLIP["vision_cfg"] | {"width": 128, "layers": 3, "mlp_ratio": 2.0}
    text = TINY_CLIP["text_cfg"] | {"width": 192}
    shapes = shapes_of({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    sizes = sizes_of_weights(shapes, "a file")
    model = architecture_of(sizes, "a file")
    assert isinstance(model, dict)
    assert sizes_of_model(model) == sizes
    assert (model["vision_cfg"]["head_width"], model["text_cfg"]["heads"]) == (64, 3)
    assert model["vision_cfg"]["image_size"] == 48


def test_heads_that_cannot_be_guessed_are_an_error() -> None:
    sizes = sizes_of_weights(shapes_of(TINY_CLIP), "a file")
    with pytest.raises(WeightsError, match=r"how many heads.*save_clip"):
        architecture_of(sizes, "a file")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.layer1.0.conv1.weight", "ResNet"),
        ("visual.trunk.patch_embed.proj.weight", "timm"),
        ("visual.attn_pool.query", "attentional pooling"),
        ("text.token_embedding.weight", "text tower of another kind"),
        ("vision_model.embeddings.class_embedding", "take the same model's open_clip file"),
        ("weight", "no CLIP vision transformer"),
    ],
)
def test_another_kind_of_model_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=f"a file .*{message}"):
        sizes_of_weights({name: torch.zeros(1)}, "a file")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("RN50", "layers"),
        ("ViT-B-16-SigLIP", "timm_model_name"),
        ("coca_ViT-B-32", "attentional_pool"),
        ("ViT-H-14-CLIPA", "pool_type"),
        ("ViT-L-14-worldwide", "hf_tokenizer_name"),
    ],
)
def test_what_a_model_has_beyond_plain_clip_is_named(name: str, part: str) -> None:
    assert part in unsupported_parts(named_model(name))
    assert unsupported_parts(named_model("ViT-L-14-336-quickgelu")) == []
