"""The benchmark from its command line to its numbers, with a CLIP of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import TINY_CLIP

from jobs.benchmark import DISAGREES, MEASURED, WRONG_USAGE, main
from jobs.model import Model
from zsad.detectors import PatchScores
from zsad.detectors.adaclip import AdaClip

VARIANTS = ["plain_fp32", "detector_fp32", "detector_bf16"]


BF16 = "jobs.benchmarking.against_plain.computes_in_bf16"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a benchmark that takes a second, on a machine that computes in bf16."""
    monkeypatch.setattr(BF16, lambda: True)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY_CLIP))
    return [
        *("--method", "adaclip", "--architecture", str(tmp_path / "tiny.json")),
        *("--image-size", "48", "--batch-size", "3", "--rounds", "2"),
    ]


def test_measures_all_variants_and_writes_their_numbers(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "numbers.json"
    assert main([*tiny, "--json", str(file)]) == MEASURED
    numbers = json.loads(file.read_text())
    assert list(numbers["seconds_per_slice"]) == VARIANTS
    for name, times in numbers["seconds_per_slice"].items():
        assert len(times["rounds"]) == 2
        assert 0 < times["fastest"] <= times["median"] <= times["slowest"]
        assert numbers[f"{name}_slices_per_s"] == pytest.approx(1 / times["median"])
    for precision in ("fp32", "bf16"):
        rates = [numbers[f"{name}_slices_per_s"] for name in (f"detector_{precision}", VARIANTS[0])]
        assert numbers[f"ratio_{precision}_over_plain"] == pytest.approx(rates[0] / rates[1])
    assert numbers["settings"]["architecture"] == TINY_CLIP
    assert numbers["command"].startswith("python jobs/benchmark.py --method adaclip")
    assert numbers["machine"]["threads"] == torch.get_num_threads()
    shown = capsys.readouterr().out
    assert all(f"round 2/2: {name}" in shown for name in VARIANTS)


def test_bf16_that_is_emulated_is_not_measured(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BF16, lambda: False)
    file = tmp_path / "numbers.json"
    assert main([*tiny, "--json", str(file)]) == MEASURED
    numbers = json.loads(file.read_text())
    assert list(numbers["seconds_per_slice"]) == VARIANTS[:2]
    assert numbers["ratio_fp32_over_plain"] > 0
    assert numbers["detector_bf16_slices_per_s"] is None
    assert numbers["ratio_bf16_over_plain"] is None


def test_both_compute_the_same(tiny: list[str], tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    main([*tiny, "--json", str(file)])
    differences = {d["of"]: d for d in json.loads(file.read_text())["differences"]}
    assert set(differences) == {"map", "score_without_fusion", "score"}
    for difference in differences.values():
        assert difference["largest"] < 1e-5
        assert difference["reach"] > 0.1
    assert differences["score"]["allowed"] is None  # of k-means


def test_each_variant_runs_as_it_is_called(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detectors take the round's slices at once; of three passes, one warms up."""
    seen: list[tuple[bool, int]] = []
    score = Model.score

    def record(model: Model, images: list[object], class_names: list[str]) -> PatchScores:
        seen.append((model.bf16, len(images)))
        return score(model, images, class_names)

    monkeypatch.setattr(Model, "score", record)
    main(tiny)
    assert seen[-6:] == [(False, 3), (True, 3)] * 3


def test_a_detector_that_is_wrong_is_no_result(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = AdaClip.render

    def shifted(detector: AdaClip, *arguments: object) -> torch.Tensor:
        return render(detector, *arguments) + 1e-3

    monkeypatch.setattr(AdaClip, "render", shifted)
    assert main(tiny) == DISAGREES
    assert "too large a difference: map" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("--method", "crane", "--method crane: choose from aaclip, adaclip"),
        ("--batch-size", "0", "--batch-size 0: must be at least 1"),
        ("--rounds", "0", "--rounds 0"),
        ("--image-size", "50", "image_size 50 is no multiple of patch size 8"),
        ("--architecture", "ViT-Z", "ViT-Z"),
        ("--architecture", "missing.json", "--architecture missing.json"),
    ],
)
def test_an_impossible_setting_is_one_line(
    tiny: list[str], setting: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*tiny, setting, value]) == WRONG_USAGE
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
