"""CLIP through open_clip: what is explicit, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY_CLIP, as_checkpoint, tiny_detector

from zsad.backbone import (
    OPENAI_MEAN,
    OPENAI_STD,
    Backbone,
    BackboneConfig,
    WeightsError,
    is_file,
    load_clip,
    load_weights,
)
from zsad.checkpoints import save_checkpoint, save_clip
from zsad.weight_files import digest_of_values


def config(**changes: object) -> BackboneConfig:
    return BackboneConfig(
        **{"architecture": TINY_CLIP, "activation": "gelu", "image_size": 48, **changes}
    )


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(Backbone(config()).clip.state_dict())


def test_activation_is_what_the_config_says() -> None:
    images, state = torch.randn(1, 3, 48, 48), weights()
    exact = Backbone(config(), state).clip.encode_image(images)
    quick = Backbone(config(activation="quick_gelu"), state).clip.encode_image(images)
    assert not torch.allclose(exact, quick, atol=1e-4)


def test_positional_grid_grows_with_the_image_and_keeps_the_class_token() -> None:
    state = weights()
    larger = Backbone(config(image_size=80), state)
    assert larger.grid == (10, 10)
    grid = larger.clip.visual.positional_embedding
    assert grid.shape == (101, 64)
    torch.testing.assert_close(grid[0], state["visual.positional_embedding"][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 50}, "50 is no multiple of patch size 8"),
        ({"activation": "relu"}, "'relu'"),
        ({"architecture": "ViT-nowhere"}, "'ViT-nowhere'"),
        ({"architecture": "RN50"}, "RN50 is not a vision transformer"),
        ({"architecture": "ViT-B-16-SigLIP"}, "timm_model_name"),
        ({"architecture": {"embed_dim": 8}}, "must have embed_dim, vision_cfg, text_cfg"),
        ({"pixel_resize": "crop"}, "pixel_resize must be 'squash', is 'crop'"),
        ({"position_resize": "nearest"}, "'nearest'"),
        ({"std": (0.2, 0.0, 0.2)}, r"\(0.2, 0.0, 0.2\)"),
    ],
)
def test_impossible_config_is_refused_with_its_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_config_survives_json_types() -> None:
    fields = config().to_dict() | {"mean": [0.1, 0.2, 0.3]}
    assert BackboneConfig.from_dict(fields).mean == (0.1, 0.2, 0.3)


def test_openai_architecture_is_vit_l_14_at_336() -> None:
    model = config(architecture="ViT-L-14-336", image_size=518).model_config()
    assert model["vision_cfg"]["patch_size"] == 14
    assert model["embed_dim"] == 768


def test_a_missing_tensor_is_an_error_not_a_random_weight() -> None:
    state = weights()
    del state["visual.ln_post.weight"]
    with pytest.raises(WeightsError, match=r"visual\.ln_post\.weight"):
        Backbone(config(), state)


def test_weights_in_place_of_random_ones_give_the_same_model() -> None:
    torch.manual_seed(1)
    drawn = Backbone(config())
    loaded = Backbone(config(), dict(drawn.clip.state_dict()))
    ids, images = drawn.tokenize(["a nut"]), torch.randn(1, 3, 48, 48)
    assert torch.equal(loaded.clip.encode_text(ids), drawn.clip.encode_text(ids))
    assert torch.equal(loaded.clip.encode_image(images), drawn.clip.encode_image(images))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_stored_float32_is_not_rounded_and_not_shared() -> None:
    state = weights()
    state["visual.proj"] += 1e-6
    loaded = Backbone(config(), state).clip.visual.proj
    assert torch.equal(loaded, state["visual.proj"])
    assert loaded.data_ptr() != state["visual.proj"].data_ptr()


def stored_clip(path: Path, *, state: dict[str, torch.Tensor] | None = None) -> str:
    save_clip(path, config(), state or weights(), note="for a test")
    return str(path)


def test_a_clip_of_ours_says_what_it_is(tmp_path: Path) -> None:
    changed = config(activation="quick_gelu", mean=(0.1, 0.2, 0.3))
    save_clip(tmp_path / "clip.safetensors", changed, weights())
    found, tensors = load_clip(str(tmp_path / "clip.safetensors"))
    assert found == changed
    assert all(torch.equal(tensors[name], t) for name, t in weights().items())


def plain_state() -> dict[str, torch.Tensor]:
    """Return the weights of a CLIP with heads of 64 channels, so that shapes tell it all."""
    model = TINY_CLIP | {
        "vision_cfg": TINY_CLIP["vision_cfg"] | {"head_width": 64},
        "text_cfg": TINY_CLIP["text_cfg"] | {"width": 64},
    }
    return dict(Backbone(config(architecture=model)).clip.state_dict())


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "training checkpoint"])
def test_a_plain_file_is_described_by_its_shapes(tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / "clip.pt", plain_state()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "state dict":
        torch.save(state, path)
    else:  # as open_clip's training writes it, from several devices
        torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}, path)
    found, tensors = load_clip(str(path))
    assert (found.activation, found.image_size) == ("gelu", 48)
    assert found.model_config()["text_cfg"]["heads"] == 1
    assert set(tensors) == set(state)
    assert load_clip(str(path), found)[0] == found


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_is_openai_s_and_so_quick_gelu(tmp_path: Path) -> None:
    module, path = torch.nn.Module(), tmp_path / "clip.pt"
    numbers = {"input_resolution": 48, "context_length": 77, "vocab_size": 49408}
    named = plain_state() | {n: torch.tensor(number) for n, number in numbers.items()}
    for name, tensor in named.items():
        owner = module
        *parents, leaf = name.split(".")
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, torch.nn.Module())
            owner = getattr(owner, parent)
        owner.register_buffer(leaf, tensor)
    torch.jit.script(module).save(str(path))
    found, tensors = load_clip(str(path))
    assert (found.activation, found.image_size) == ("quick_gelu", 48)
    assert set(tensors) == set(named) - set(numbers)


@pytest.mark.parametrize(
    ("source", "architecture", "activation", "size"),
    [
        ("openai", "ViT-L-14-336", "quick_gelu", 336),
        ("ViT-B-16/openai", "ViT-B-16", "quick_gelu", 224),
        ("ViT-B-16/laion2b_s34b_b88k", "ViT-B-16", "gelu", 224),
        ("ViT-B-32-quickgelu/laion400m_e31", "ViT-B-32-quickgelu", "quick_gelu", 224),
    ],
)
def test_published_clips_are_described_by_open_clip(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
    architecture: str,
    activation: str,
    size: int,
) -> None:
    torch.save(plain_state(), tmp_path / "downloaded.pt")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: tmp_path / "downloaded.pt")
    found, _ = load_clip(source)
    assert found.architecture == architecture
    assert (found.activation, found.image_size) == (activation, size)
    assert found.mean == open_clip.OPENAI_DATASET_MEAN
    assert not is_file(source)


def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(_: object) -> str:
        raise OSError("https://name:secret@host")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    message = r"could not download ViT-B-16/openai \(OSError\): .* pass the file with --clip$"
    with pytest.raises(WeightsError, match=message):
        load_clip("ViT-B-16/openai")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ViT-B-16/unheard_of", "open_clip has ViT-B-16 pretrained as .*openai"),
        ("RN50/openai", "RN50/openai: RN50 is not a vision transformer"),
        ("ViT-B-16-SigLIP/webli", "timm_model_name"),
        ("nowhere/clip.pt", "no weights at nowhere/clip.pt"),
        ("ViT-B-16", "no weights at ViT-B-16"),
    ],
)
def test_impossible_source_is_refused_by_name(source: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_clip(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "quick_gelu"}, "activation gelu instead of quick_gelu"),
        ({"std": (0.5, 0.5, 0.5)}, r"std \(0.26.*instead of \(0.5, 0.5, 0.5\)"),
        (
            {"architecture": TINY_CLIP | {"embed_dim": 8}},
            "clip.safetensors is not the CLIP .* embedding 32 instead of 8",
        ),
        ({"architecture": "ViT-L-14-336", "image_size": 336}, "vision width 64 instead of 1024"),
    ],
)
def test_another_clip_than_asked_for_is_refused(
    tmp_path: Path, changes: dict, message: str
) -> None:
    source = stored_clip(tmp_path / "clip.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_clip(source, config(**changes))


def test_another_native_resolution_is_another_clip_but_another_input_size_is_not(
    tmp_path: Path,
) -> None:
    source = stored_clip(tmp_path / "clip.safetensors")
    assert load_clip(source, config(image_size=96))[0].image_size == 96
    native = TINY_CLIP | {"vision_cfg": TINY_CLIP["vision_cfg"] | {"image_size": 96}}
    with pytest.raises(WeightsError, match="native image size 48 instead of 96"):
        load_clip(source, config(architecture=native, image_size=96))


def test_a_known_digest_decides_and_not_how_the_file_calls_itself(tmp_path: Path) -> None:
    source = stored_clip(tmp_path / "clip.safetensors")
    same = digest_of_values(weights())
    load_clip(source, config(activation="quick_gelu"), digest=same)
    state = weights()
    state["visual.conv1.weight"][0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match=f"values of digest {same[:12]}… instead of"):
        load_clip(source, config(), digest=digest_of_values(state))


def test_a_checkpoint_without_a_clip_inside_is_no_source(tmp_path: Path) -> None:
    checkpoint = replace(as_checkpoint(tiny_detector()), clip=None)
    save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    with pytest.raises(WeightsError, match=r"m\.safetensors has no CLIP inside"):
        load_clip(str(tmp_path / "m.safetensors"))


def test_foreign_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors holds no CLIP vision transformer"):
        load_weights(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no weights at"):
        load_weights(tmp_path / "nowhere.pt")


def test_normalisation_is_that_of_openai_by_default() -> None:
    assert (OPENAI_MEAN, OPENAI_STD) == (
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )
