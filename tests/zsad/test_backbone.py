"""CLIP through open_clip: what is explicit, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY_CLIP

from zsad.backbone import Backbone, BackboneConfig, WeightsError, load_weights


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


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_load_from_safetensors_and_state_dicts(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"clip{suffix}", weights()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_weights(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_load_from_a_torchscript_archive_as_openai_published_it(tmp_path: Path) -> None:
    module, state = torch.nn.Module(), weights()
    for name, tensor in state.items():
        owner = module
        *parents, leaf = name.split(".")
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, torch.nn.Module())
            owner = getattr(owner, parent)
        owner.register_buffer(leaf, tensor)
    torch.jit.script(module).save(str(tmp_path / "clip.pt"))
    loaded = load_weights(tmp_path / "clip.pt")
    assert set(loaded) == set(state)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"visual.class_embedding": Harmful()}, tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(tmp_path / "clip.pt")
    assert not (tmp_path / "ran").exists()


def test_foreign_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no CLIP vision transformer"):
        load_weights(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no weights at"):
        load_weights(tmp_path / "nowhere.pt")
