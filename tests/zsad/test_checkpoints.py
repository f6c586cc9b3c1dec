"""Checkpoints: nothing is lost, nothing foreign gets in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_cases import cases
from safetensors.torch import save_file
from tiny import TINY_CLIP, as_checkpoint, tiny_detector

from zsad import official_adaclip, weights
from zsad.backbone import Backbone, BackboneConfig, WeightsError
from zsad.checkpoints import load_checkpoint, load_official, save_checkpoint, save_clip
from zsad.detectors import build_detector, check_checkpoint, find_clip, load_detector
from zsad.detectors.aaclip import AAClip
from zsad.detectors.adaclip import AdaClip, AdaClipConfig
from zsad.official_aaclip import write_official
from zsad.weight_files import read_weight_file, write_weight_file


def test_a_stored_detector_comes_back_bit_by_bit(tmp_path: Path) -> None:
    detector = tiny_detector()
    save_checkpoint(tmp_path / "m.safetensors", as_checkpoint(detector, note="for a test"))
    loaded, checkpoint = load_detector(tmp_path / "m.safetensors")
    assert checkpoint.note == "for a test"
    assert checkpoint.backbone == detector.backbone.config
    expected = detector.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())
    assert loaded.config == detector.config


def test_digest_changes_with_the_weights(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        path = tmp_path / "m.safetensors"
        save_checkpoint(path, as_checkpoint(tiny_detector(seed)))
        digests.append(load_checkpoint(path).digest)
    assert digests[0] == digests[1] != digests[2]


def test_official_folder_is_read_with_its_depths_and_relu_variant() -> None:
    for folder in cases("aaclip"):
        case = json.loads((folder / "config.json").read_text())
        named = {name: case[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        size, ours = case["aaclip"]["img_size"], case["aaclip"]
        clip = BackboneConfig(architecture=named, activation="quick_gelu", image_size=size)
        checkpoint = load_official(folder, clip=clip, image_size=size)
        check_checkpoint(checkpoint)
        assert checkpoint.backbone == replace(clip, activation="gelu")
        for name in ("levels", "text_adapt_until", "image_adapt_until", "relu"):
            assert checkpoint.method_config[name] == ours[name]


def official(folder: Path, *, relu: bool = False, epochs: tuple[int, ...] = (1,)) -> AAClip:
    """Write the folder of a detector on a CLIP as large as the tiny one; return the detector."""
    detector = tiny_detector()
    config = replace(detector.config, relu=relu)
    detector = AAClip(detector.backbone, config).eval()
    for epoch in epochs:
        detector.image_adapter.det_proj.requires_grad_(False)
        next(detector.image_adapter.det_proj.parameters())[0, 0] = epoch
        write_official(folder, detector.state_dict(), {"text": 1, "image": epoch})
    return detector


@pytest.mark.parametrize("relu", [True, False])
def test_both_variants_of_the_key_names_load(tmp_path: Path, relu: bool) -> None:
    detector = official(tmp_path, relu=relu)
    names = set(torch.load(tmp_path / "image_adapter_1.pth")["image_adapter"])
    assert ("seg_proj.0.fc.0.weight" in names) is relu
    assert ("seg_proj.0.fc.weight" in names) is not relu
    checkpoint = load_official(tmp_path, clip=detector.backbone.config, image_size=48)
    assert checkpoint.method_config["relu"] is relu
    loaded = build_detector(replace(checkpoint, clip=dict(detector.backbone.clip.state_dict())))
    expected = detector.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())


def test_of_several_epochs_the_highest_number_is_read_or_the_one_asked_for(tmp_path: Path) -> None:
    clip = official(tmp_path, epochs=(9, 10, 2)).backbone.config
    name = "image_adapter.det_proj.fc.weight"
    assert load_official(tmp_path, clip=clip, image_size=48).tensors[name][0, 0] == 10
    chosen = load_official(tmp_path, clip=clip, image_size=48, epoch=2)
    assert chosen.tensors[name][0, 0] == 2
    assert chosen.training == {"code": "official", "epochs": {"text": 1, "image": 2}}
    with pytest.raises(WeightsError, match=r"no image_adapter_3\.pth, but of \[2, 9, 10\]"):
        load_official(tmp_path, clip=clip, image_size=48, epoch=3)


def test_the_official_optimiser_loads_what_is_written(tmp_path: Path) -> None:
    detector = official(tmp_path)
    for part in ("text", "image"):
        adapter = getattr(detector, f"{part}_adapter")
        stored = torch.load(next(tmp_path.glob(f"{part}_adapter*.pth")))
        assert stored["epoch"] == 1
        adapter.load_state_dict(stored[f"{part}_adapter"])
        optimiser = torch.optim.Adam(adapter.parameters(), lr=1.0, betas=(0.5, 0.999))
        optimiser.load_state_dict(stored[f"{part}_optimizer"])
        assert optimiser.param_groups[0]["lr"] == {"text": 1e-5, "image": 5e-4}[part]


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["text_adapter.pth", "image_adapter_1.pth"])
@pytest.mark.parametrize("change", ["code", "cut", "foreign", "nan", "epochs"])
def test_a_bad_official_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, change: str
) -> None:
    official(tmp_path)
    path, part = tmp_path / name, "text_adapter" if "text" in name else "image_adapter"
    content = torch.load(path)
    match change:
        case "code":
            torch.save({"epoch": 1, part: Harmful(tmp_path / "ran")}, path)
        case "cut":
            path.write_bytes(path.read_bytes()[:-1000])
        case "foreign":
            torch.save(content[part], path)
        case "nan":
            next(iter(content[part].values()))[0, 0] = torch.nan
            torch.save(content, path)
        case "epochs":
            torch.save(content | {"epoch": "last"}, path)
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_official_folder_needs_the_clip_it_was_trained_on(tmp_path: Path) -> None:
    detector = official(tmp_path)
    source = tmp_path / "clip.safetensors"
    save_clip(source, detector.backbone.config, dict(detector.backbone.clip.state_dict()))
    with pytest.raises(WeightsError, match="vision width 64 instead of 1024"):
        build_detector(
            replace(
                load_checkpoint(tmp_path), clip=find_clip(load_checkpoint(tmp_path), str(source))
            )
        )
    with pytest.raises(WeightsError, match="518 is no multiple of patch size 8; name the size"):
        load_detector(tmp_path, clip=str(source))


def official_file(path: Path, source: Path) -> AdaClip:
    """Write AdaCLIP's file of a detector, and its CLIP, of patches of 14 pixels; return it."""
    torch.manual_seed(0)
    vision = {**TINY_CLIP["vision_cfg"], "image_size": 28, "patch_size": 14}
    clip = BackboneConfig(
        architecture={**TINY_CLIP, "vision_cfg": vision}, activation="gelu", image_size=28
    )
    detector = AdaClip(Backbone(clip), AdaClipConfig(levels=(2, 4))).eval()
    official_adaclip.write_official(path, own_tensors(detector))
    save_clip(source, clip, dict(detector.backbone.clip.state_dict()))
    return detector


def own_tensors(detector: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = detector.state_dict()
    return {name: t for name, t in state.items() if not name.startswith("backbone.")}


def test_an_official_file_runs_as_its_authors_ran_it_on_the_clip_that_is_named(
    tmp_path: Path,
) -> None:
    path, source = tmp_path / "official.pth", tmp_path / "clip.safetensors"
    written = official_file(path, source)
    detector, checkpoint = load_detector(path, clip=str(source))
    assert checkpoint.method == "adaclip"
    assert checkpoint.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.training == {"code": "official"}
    backbone = detector.backbone_config
    assert backbone.image_size == 518
    assert (backbone.activation, backbone.position_resize) == ("gelu", "bicubic")
    assert detector.config.levels == (2, 4) == written.config.levels
    loaded, expected = own_tensors(detector), own_tensors(written)
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_what_does_not_fit_an_official_file_is_named_with_it(tmp_path: Path) -> None:
    path, source = tmp_path / "official.pth", tmp_path / "clip.safetensors"
    official_file(path, source)
    content = torch.load(path)
    del content["clip_model.cls_token_layer.head.0.bias"]
    torch.save(content, path)
    missing = r"official\.pth: .*cls_token_layer\.head\.0\.bias is missing"
    with pytest.raises(WeightsError, match=missing):
        load_detector(path, clip=str(source))
    other = tiny_detector().backbone  # its patches have 8 pixels
    save_clip(source, other.config, dict(other.clip.state_dict()))
    with pytest.raises(WeightsError, match=r"official\.pth: .*518 is no multiple of .* 8; name"):
        load_detector(path, clip=str(source))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08" + bytes(7) + b"{}"])
def test_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        load_checkpoint(tmp_path / "broken.safetensors")


def test_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector()))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        load_checkpoint(path)


def test_foreign_file_is_an_error(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not written by zsad"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_folder_without_official_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no official AA-CLIP checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_adapter.0.fc.0.weight": None}, r"text_adapter\.0\.fc\.0\.weight is missing"),
        (
            {"text_adapter.0.fc.0.weight": torch.zeros(3, 3)},
            r"text_adapter\.0\.fc\.0\.weight is 3×3 instead of 32×32",
        ),
        ({"text_adapter.7.fc.0.weight": torch.zeros(1)}, r"text_adapter\.7.* is left over"),
        ({"backbone.clip.visual.proj": torch.zeros(64, 32)}, r"backbone.* is left over"),
    ],
)
def test_every_tensor_must_fit(change: dict, message: str) -> None:
    checkpoint = as_checkpoint(tiny_detector())
    tensors = {n: t for n, t in {**checkpoint.tensors, **change}.items() if t is not None}
    for check in (build_detector, check_checkpoint):
        with pytest.raises(WeightsError, match=message):
            check(replace(checkpoint, tensors=tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": None}, "no method None"),
        ({"method": "winclip"}, "no method 'winclip'; there are"),
        ({"backbone": {"activation": "gelu"}}, "is broken: its description"),
        ({"backbone": None}, "is broken: its description"),
        ({"method_config": {"levels": [9]}}, "the configuration of aaclip: .*levels"),
        ({"method_config": {"colour": "red"}}, "the configuration of aaclip: .*colour"),
        ({"method_config": 3}, "is broken: its description"),
    ],
)
def test_a_broken_description_is_an_error_that_names_the_file(
    tmp_path: Path, change: dict, message: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector()))
    content, described = read_weight_file(path)
    broken = tmp_path / "broken.safetensors"
    write_weight_file(broken, content, {**(described or {}), **change})
    with pytest.raises(WeightsError, match=rf"broken\.safetensors.*{message}"):
        load_detector(broken)


def test_adapters_run_on_the_clip_they_were_trained_on_and_no_other(tmp_path: Path) -> None:
    detector, path = tiny_detector(), tmp_path / "m.safetensors"
    same = {n: t.clone() for n, t in detector.backbone.clip.state_dict().items()}
    save_checkpoint(path, as_checkpoint(detector))
    stored = load_checkpoint(path)
    assert stored.clip_digest
    save_checkpoint(path, replace(stored, clip=None))
    save_file(same, tmp_path / "same.safetensors")
    load_detector(path, clip=str(tmp_path / "same.safetensors"))
    save_file(same | {"logit_scale": torch.tensor(3.0)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"m\.safetensors: .*other\.safetensors is not the CLIP"):
        load_detector(path, clip=str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match=r"a CLIP of its own, .* name that CLIP with --clip"):
        load_detector(path)


def test_a_clip_alone_is_no_detector(tmp_path: Path) -> None:
    detector, path = tiny_detector(), tmp_path / "clip.safetensors"
    save_clip(path, detector.backbone.config, dict(detector.backbone.clip.state_dict()))
    assert load_checkpoint(path).method == "clip"
    with pytest.raises(WeightsError, match=r"clip\.safetensors: this is a CLIP alone"):
        load_detector(path)


def test_an_embedded_model_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    save_checkpoint(tmp_path / "small.safetensors", as_checkpoint(tiny_detector(), note="inside"))
    _, checkpoint = load_detector("small")
    assert checkpoint.note == "inside"
    with pytest.raises(WeightsError, match=r"no checkpoint at smaller; .* this package: small$"):
        load_detector("smaller")
