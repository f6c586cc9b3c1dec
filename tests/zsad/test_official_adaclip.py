"""AdaCLIP's official files: what they tell is read off them, and what does not fit is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import cases
from safetensors.torch import save_file
from tiny import TINY_CLIP
from torch import Tensor

from zsad.backbone import Backbone, BackboneConfig, WeightsError
from zsad.checkpoints import Checkpoint, load_official
from zsad.detectors import check_checkpoint
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.official_adaclip import PREFIX, read_official, write_official

CLIP = BackboneConfig(architecture=TINY_CLIP, activation="quick_gelu", image_size=48)
BRANCHES = ("", "V", "L", "VL")


@cache
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(CLIP)


def tensors_of(**config: Any) -> dict[str, Tensor]:
    """Return the method's tensors, random, as an AdaCLIP of this configuration has them."""
    detector = AdaClip(backbone(), AdaClipConfig(**{"levels": (2, 4)} | config))
    return {n: t for n, t in detector.state_dict().items() if not n.startswith("backbone.")}


def load(path: Path, **said: Any) -> Checkpoint:
    """Read a file and check it against the tiny CLIP."""
    checkpoint = load_official(path, clip=CLIP, image_size=48, **said)
    check_checkpoint(checkpoint)
    return checkpoint


def same_bits(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(
        left.flatten().view(torch.uint8), right.flatten().view(torch.uint8)
    )


@pytest.fixture(params=cases("adaclip"), ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_a_file_of_the_official_code_tells_its_prompts_and_levels(folder: Path) -> None:
    case = json.loads((folder / "config.json").read_text())
    named = {name: case[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    theirs = case["adaclip"]
    clip = BackboneConfig(architecture=named, activation="quick_gelu", image_size=84)
    checkpoint = load_official(
        folder / "adaclip.pth",
        clip=clip,
        image_size=theirs["image_size"],
        hsf=theirs["use_hsf"],
        clusters=theirs["k_clusters"],
    )
    check_checkpoint(checkpoint)
    assert checkpoint.backbone == BackboneConfig(
        architecture=named,
        activation="gelu",
        image_size=theirs["image_size"],
        position_resize="bicubic",
    )
    assert checkpoint.method_config == {
        "levels": theirs["output_layers"],
        "prompt_type": theirs["prompting_type"],
        "prompt_branch": theirs["prompting_branch"],
        "prompt_depth": theirs["prompting_depth"],
        "prompt_length": theirs["prompting_length"],
        "hsf": theirs["use_hsf"],
        "clusters": theirs["k_clusters"],
    }


def test_what_is_read_and_written_again_has_the_same_names_and_bits(
    folder: Path, tmp_path: Path
) -> None:
    original = torch.load(folder / "adaclip.pth", weights_only=True)
    write_official(tmp_path / "new" / "back.pth", read_official(folder / "adaclip.pth").tensors)
    back = torch.load(tmp_path / "new" / "back.pth", weights_only=True)
    assert list(back) == list(original)
    assert all(same_bits(back[name], tensor) for name, tensor in original.items())


@pytest.mark.parametrize(
    ("prompt_type", "prompt_branch"), list(itertools.product(("S", "SD"), BRANCHES[1:]))
)
def test_static_prompts_tell_type_branch_depth_and_length(
    tmp_path: Path, prompt_type: str, prompt_branch: str
) -> None:
    config = {"prompt_type": prompt_type, "prompt_branch": prompt_branch}
    shape = {"prompt_depth": 3, "prompt_length": 2}
    write_official(tmp_path / "a.pth", tensors_of(**config, **shape))
    read = AdaClipConfig.from_dict(load(tmp_path / "a.pth").method_config)
    assert read == AdaClipConfig(levels=(2, 4), **config, **shape)


def test_dynamic_prompts_alone_do_not_tell_branch_and_depth(tmp_path: Path) -> None:
    write_official(
        tmp_path / "a.pth", tensors_of(prompt_type="D", prompt_branch="V", prompt_length=3)
    )
    config = load(tmp_path / "a.pth").method_config
    assert (config["prompt_type"], config["prompt_length"]) == ("D", 3)
    assert (config["prompt_branch"], config["prompt_depth"]) == ("V", 4)
    for branch in BRANCHES:
        told = load(tmp_path / "a.pth", prompt_branch=branch, prompt_depth=2).method_config
        assert (told["prompt_branch"], told["prompt_depth"]) == (branch, 2)


@pytest.mark.parametrize("prompt_type", ["", "S"])
def test_a_file_without_prompts_says_so(tmp_path: Path, prompt_type: str) -> None:
    write_official(tmp_path / "a.pth", tensors_of(prompt_type=prompt_type, prompt_branch=""))
    config = load(tmp_path / "a.pth").method_config
    assert (config["prompt_type"], config["prompt_branch"]) == ("", "")
    with pytest.raises(WeightsError, match=r"a\.pth: its tensors say prompt_branch '', not 'V'"):
        load(tmp_path / "a.pth", prompt_branch="V")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"prompt_branch": "VL"}, "prompt_branch 'L', not 'VL'"),
        ({"prompt_branch": ""}, "prompt_branch 'L', not ''"),
        ({"prompt_depth": 4}, "prompt_depth 3, not 4"),
    ],
)
def test_who_says_otherwise_than_the_tensors_is_contradicted(
    tmp_path: Path, said: dict, message: str
) -> None:
    write_official(tmp_path / "a.pth", tensors_of(prompt_branch="L", prompt_depth=3))
    with pytest.raises(WeightsError, match=rf"a\.pth: its tensors say {message}"):
        load(tmp_path / "a.pth", **said)
    load(tmp_path / "a.pth", prompt_branch="L", prompt_depth=3)


@pytest.mark.parametrize(("blocks", "levels"), [(12, [3, 6, 9, 12]), (14, [3, 6, 9, 12])])
def test_levels_are_every_fourth_part_of_the_blocks_rounded_down(
    tmp_path: Path, blocks: int, levels: list[int]
) -> None:
    write_official(tmp_path / "a.pth", tensors_of(levels=(1, 2, 3, 4)))
    deeper = {**TINY_CLIP, "vision_cfg": {**TINY_CLIP["vision_cfg"], "layers": blocks}}
    clip = replace(CLIP, architecture=deeper)
    read = read_official(tmp_path / "a.pth", clip=clip, image_size=48)
    assert read.method_config["levels"] == levels


def test_the_same_names_in_a_safetensors_file_are_read_too(tmp_path: Path) -> None:
    tensors = tensors_of()
    save_file({PREFIX + n: t for n, t in tensors.items()}, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors").tensors
    assert all(same_bits(loaded[name], tensor) for name, tensor in tensors.items())


CHANGES = {
    "is missing": lambda name, tensor: {},
    "is left over": lambda name, tensor: {name: tensor, name + "_too": tensor},
    "instead of": lambda name, tensor: {name: tensor[..., None]},
}


@pytest.mark.parametrize(
    "name",
    [
        "text_prompter.static_prompts.0",
        "visual_prompter.static_prompts.3",
        "patch_token_layer.head.1.weight",
        "cls_token_layer.head.0.bias",
        "dynamic_visual_prompt_generator.head.0.bias",
        "dynamic_text_prompt_generator.head.4.weight",
    ],
)
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_tensor_too_few_too_many_or_of_another_shape_is_never_let_in(
    tmp_path: Path, name: str, change: str
) -> None:
    tensors = tensors_of()
    tensor = tensors.pop(name)
    write_official(tmp_path / "a.pth", tensors | CHANGES[change](name, tensor))
    with pytest.raises(WeightsError, match=rf"{name}.* {change}"):
        load(tmp_path / "a.pth")


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("code", "nothing in it is ever run"),
        ("cut", "incomplete"),
        ("nan", "clip_model.cls_token_layer.head.0.bias holds NaN"),
        ("number", "clip_model.epoch is a int"),
        ("no prefix", "none of its .* names begins with clip_model"),
        ("one without prefix", "epoch is left over"),
        ("no levels", "has no patch_token_layer"),
        ("empty", "none of its 0 names"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "a.pth"
    content: dict[Any, Any] = {PREFIX + name: t for name, t in tensors_of().items()}
    match change:
        case "code":
            content[PREFIX + "epoch"] = Harmful(tmp_path / "ran")
        case "nan":
            content[PREFIX + "cls_token_layer.head.0.bias"] = torch.full((32,), torch.nan)
        case "number":
            content[PREFIX + "epoch"] = 5
        case "no prefix":
            content = {**tensors_of(), 3: torch.zeros(1)}
        case "one without prefix":
            content["epoch"] = torch.zeros(1)
        case "no levels":
            content = {n: t for n, t in content.items() if "patch_token_layer" not in n}
        case "empty":
            content = {}
    torch.save(content, path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=rf"a\.pth.*{message}"):
        load(path)
    assert not (tmp_path / "ran").exists()
