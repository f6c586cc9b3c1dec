"""Checkpoints go from the official format to ours and back, and no bit changes."""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import GoldenCase, cases
from PIL import Image
from safetensors.torch import load
from tiny import as_checkpoint, tiny_detector

from jobs.convert_checkpoint import CONVERTED, NOT_POSSIBLE, main
from zsad.backbone import BackboneConfig
from zsad.checkpoints import save_checkpoint, save_clip
from zsad.detectors import load_detector
from zsad.preprocess import squash


def convert(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


class Converted(GoldenCase):
    """A golden case as one file of ours, its CLIP beside it."""

    def __init__(self, folder: Path, out: Path) -> None:
        super().__init__(folder)
        self.out, self.file, self.clip = out, out / "model.safetensors", out / "clip.safetensors"
        native = self.backbone(image_size=self.config["vision_cfg"]["image_size"])
        save_clip(self.clip, native.config, dict(native.clip.state_dict()))
        ours = self.config["aaclip"]
        said = [
            *("--clip", self.clip, "--image-size", ours["img_size"], "--levels", *ours["levels"]),
            *("--text-adapt-weight", ours["text_adapt_weight"]),
            *("--image-adapt-weight", ours["image_adapt_weight"]),
        ]
        assert convert("--input", folder, "--output", self.file, *said) == CONVERTED


@pytest.fixture(scope="module", params=cases("aaclip"), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return Converted(request.param, tmp_path_factory.mktemp("converted"))


def adapters(folder: Path, part: str) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob(f"{part}*.pth"))
    assert len(files) == 1
    return torch.load(files[0], weights_only=True)[part]


def test_official_to_ours_and_back_is_bit_identical(case: Converted) -> None:
    back = case.out / "back"
    assert convert("--input", case.file, "--output", back) == CONVERTED
    originals = sorted(path.name for path in case.folder.glob("*.pth"))
    assert sorted(path.name for path in back.iterdir()) == originals
    for part in ("text_adapter", "image_adapter"):
        before, after = adapters(case.folder, part), adapters(back, part)
        assert set(before) == set(after)
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype
            assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_the_converted_file_scores_as_the_official_code(case: Converted) -> None:
    detector, checkpoint = load_detector(case.file, clip=str(case.clip))
    assert checkpoint.clip_digest
    rows = case.class_of_row
    names = [case.config["classes"][k]["real_name"] for k in rows]
    pixels = case.pixels(case.config["aaclip"]["img_size"])
    with torch.inference_mode():
        scores = detector(pixels, detector.encode_text(names))
    expected = torch.from_numpy(case.expected["image_score"])
    torch.testing.assert_close(scores.image, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector()))
    return path


def test_a_trained_file_becomes_a_folder_and_its_limits_are_told(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "official"
    assert convert("--input", ours, "--output", folder, "--epoch", 7) == CONVERTED
    assert {path.name for path in folder.iterdir()} == {"text_adapter.pth", "image_adapter_7.pth"}
    told = capsys.readouterr().out
    assert "--img_size 48 --text_adapt_until 1 --image_adapt_until 1" in told
    assert "written for levels (6, 12, 18, 24); this checkpoint has (2, 4)" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clip", "openai"), "--clip is for official checkpoints"),
        (("--levels", 2, 4), "--levels is for official checkpoints"),
        (("--no-hsf",), "--hsf is for official checkpoints"),
        (("--output", "x.safetensors"), "x.safetensors: name a folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    ours: Path, arguments: tuple, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert convert("--input", ours, "--output", "unused", *arguments) == NOT_POSSIBLE
    assert message in capsys.readouterr().err


def test_another_method_or_nothing_at_all_is_refused(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_checkpoint(ours, replace(as_checkpoint(tiny_detector()), method="clip"))
    for source, message in ((ours, "holds 'clip'"), (tmp_path / "nothing", "no checkpoint at")):
        assert convert("--input", source, "--output", tmp_path / "out") == NOT_POSSIBLE
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class ConvertedFile:
    """A golden case of AdaCLIP as one file of ours, its CLIP beside it."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.file, self.clip = out / "model.safetensors", out / "clip.safetensors"
        self.config = json.loads((folder / "config.json").read_text())
        named = {name: self.config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        size = named["vision_cfg"]["image_size"]
        native = BackboneConfig(architecture=named, activation="gelu", image_size=size)
        tensors = load(lzma.decompress((folder / "clip.safetensors.xz").read_bytes()))
        tensors["logit_scale"] = tensors["logit_scale"].reshape(())
        save_clip(self.clip, native, tensors)

    def convert(self, *said: object) -> None:
        size = self.config["adaclip"]["image_size"]
        said = ("--clip", self.clip, "--image-size", size, *said)
        source = self.folder / "adaclip.pth"
        assert convert("--input", source, "--output", self.file, *said) == CONVERTED


@pytest.fixture(params=cases("adaclip"), ids=lambda folder: folder.name)
def file_case(request: pytest.FixtureRequest, tmp_path: Path) -> ConvertedFile:
    return ConvertedFile(request.param, tmp_path)


def test_an_official_file_to_ours_and_back_is_bit_identical(
    file_case: ConvertedFile, capsys: pytest.CaptureFixture
) -> None:
    file_case.convert("--clusters", 4)
    back = file_case.out / "back.pth"
    assert convert("--input", file_case.file, "--output", back) == CONVERTED
    before = torch.load(file_case.folder / "adaclip.pth", weights_only=True)
    after = torch.load(back, weights_only=True)
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
    assert back.stat().st_size < 1.1 * (file_case.folder / "adaclip.pth").stat().st_size
    told = capsys.readouterr().out
    theirs = file_case.config["adaclip"]
    assert (
        f"--image_size {theirs['image_size']} --prompting_depth {theirs['prompting_depth']} "
        f"--prompting_length {theirs['prompting_length']} --prompting_type "
        f"{theirs['prompting_type']} --prompting_branch {theirs['prompting_branch']} "
        "--use_hsf True --k_clusters 4"
    ) in told
    assert "written for CLIP ViT-B-16 or " in told
    assert "written for activation" not in told
    assert "written for levels" not in told


def test_a_converted_file_scores_as_the_official_code(file_case: ConvertedFile) -> None:
    file_case.convert("--no-hsf")
    detector, checkpoint = load_detector(file_case.file, clip=str(file_case.clip))
    assert checkpoint.clip_digest
    listed = json.loads((file_case.folder / "meta.json").read_text())["test"].values()
    entries = [entry for entries in listed for entry in entries]
    size = file_case.config["adaclip"]["image_size"]
    images = [Image.open(file_case.folder / entry["img_path"]) for entry in entries]
    pixels = [squash(np.asarray(image.convert("RGB")), size) for image in images]
    with torch.inference_mode():
        texts = detector.encode_text([entry["cls_name"] for entry in entries])
        scores = detector(torch.from_numpy(np.stack(pixels)), texts)
    expected = torch.from_numpy(np.load(file_case.folder / "expected.npz")["score_nohsf"])
    torch.testing.assert_close(scores.image.sigmoid(), expected, rtol=1e-5, atol=1e-5)


def test_dynamic_prompts_alone_go_where_they_are_said_to_go(
    file_case: ConvertedFile, capsys: pytest.CaptureFixture
) -> None:
    content = torch.load(file_case.folder / "adaclip.pth", weights_only=True)
    alone = {name: tensor for name, tensor in content.items() if "static" not in name}
    file_case.folder = file_case.out
    torch.save(alone, file_case.out / "adaclip.pth")
    file_case.convert("--prompt-branch", "VL", "--prompt-depth", 3)
    capsys.readouterr()
    assert convert("--input", file_case.file, "--output", file_case.out / "b.pth") == CONVERTED
    told = capsys.readouterr().out
    assert (
        "--prompting_depth 3 --prompting_length 2 --prompting_type D --prompting_branch VL" in told
    )
    assert "cannot run dynamic prompts alone in the text tower" in told


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("adaclip.pth", ("--epoch", 2), r"adaclip\.pth: --epoch is not for AdaCLIP"),
        ("adaclip.pth", ("--text-adapt-weight", 0.2), "--text-adapt-weight is not for AdaCLIP"),
        ("adaclip.pth", ("--prompt-branch", "V"), "say prompt_branch 'VL', not 'V'"),
        ("adaclip.pth", ("--output", "m.pth"), "name a file that ends in .safetensors"),
        ("adaclip.pth", (), r"adaclip\.pth: .* instead of .* Name it with --clip"),
        ("config.json", (), r"config\.json cannot be read as weights"),
        ("", ("--clusters", 4), "--clusters is not for AA-CLIP"),
        ("", ("--no-hsf",), "--hsf is not for AA-CLIP"),
    ],
)
def test_options_of_another_method_or_against_the_file_are_refused(
    source: str, arguments: tuple, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = cases("adaclip")[0]
    made = ("--input", folder / source, "--output", tmp_path / "m.safetensors")
    assert convert(*made, *arguments) == NOT_POSSIBLE
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epoch", 2), "--epoch is for official checkpoints"),
        (("--clusters", 4), "--clusters is for official checkpoints"),
        (("--output", "x"), "--output x: name a file that ends in .pth"),
    ],
)
def test_our_file_of_adaclip_becomes_a_pth_without_options(
    file_case: ConvertedFile, arguments: tuple, message: str, capsys: pytest.CaptureFixture
) -> None:
    file_case.convert()
    made = ("--input", file_case.file, "--output", file_case.out / "b.pth")
    assert convert(*made, *arguments) == NOT_POSSIBLE
    assert message in capsys.readouterr().err


def test_a_folder_on_another_clip_than_openai_s_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = next(f for f in cases("aaclip") if width(f) != 1024)
    assert convert("--input", folder, "--output", tmp_path / "m.safetensors") == NOT_POSSIBLE
    assert "instead of 768×768" in (told := capsys.readouterr().err)
    assert "Name it with --clip" in told
    assert convert("--input", folder, "--output", tmp_path / "m") == NOT_POSSIBLE
    assert "name a file that ends in .safetensors" in capsys.readouterr().err


def width(folder: Path) -> int:
    return json.loads((folder / "config.json").read_text())["vision_cfg"]["width"]
