"""Checkpoints go from the official format to ours and back, and no bit changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_cases import GoldenCase, cases
from tiny import as_checkpoint, tiny_detector

from jobs.convert_checkpoint import CONVERTED, NOT_POSSIBLE, main
from zsad.checkpoints import save_checkpoint, save_clip
from zsad.detectors import load_detector


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
        (("--clip", "openai"), "--clip is for folders"),
        (("--levels", 2, 4), "--levels is for folders"),
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
