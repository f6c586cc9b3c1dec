"""The benchmark from its command line to its numbers, with a CLIP of a few thousand weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY_CLIP

from jobs.benchmark import MEASURED, WENT_WRONG, WRONG_USAGE, main
from jobs.benchmarking import flops
from jobs.benchmarking.result import HEADLINES
from jobs.model import Model
from zsad.detectors import PatchScores
from zsad.detectors.adaclip import AdaClip

ROOT = Path(__file__).parents[2]
VARIANTS = ["plain_fp32", "detector_fp32", "detector_bf16"]


BF16 = "jobs.benchmarking.against_plain.computes_in_bf16"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The arguments of a benchmark that takes a second, on a machine that computes in bf16."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other most of the time
    monkeypatch.setattr(BF16, lambda: True)
    monkeypatch.setattr(flops, "CPU_PRODUCTS", ((64, 64, 64),))
    (tmp_path / "tiny.json").write_text(json.dumps(TINY_CLIP))
    yield [
        *("--method", "adaclip", "--architecture", str(tmp_path / "tiny.json")),
        *("--image-size", "48", "--batch-size", "3", "--rounds", "2"),
    ]
    torch.set_num_threads(threads)


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
        assert numbers["fraction_of_matmul_peak_by_variant"][f"detector_{precision}"] > 0
        assert numbers[f"matmul_peak_{precision}_tflops"] > 0
    assert set(HEADLINES) <= set(numbers)
    assert numbers["pipeline_slices_per_s"] is None
    assert list(numbers["machine_seconds_per_1000_slices"]) == VARIANTS
    assert numbers["settings"]["weights"]["architecture"] == TINY_CLIP
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
    """Detectors take the round's slices at once; of three passes, one warms up.

    Two more batches of the fastest are timed stage by stage.
    """
    seen = record_scoring(monkeypatch)
    main(tiny)
    assert seen[-8:-2] == [(False, 3), (True, 3)] * 3
    assert seen[-2] == seen[-1] in [(False, 1), (True, 1)]  # the stages of one core's slice


def test_of_several_batch_sizes_the_fastest_counts(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_scoring(monkeypatch)
    file = tmp_path / "numbers.json"
    sizes = tiny.index("--batch-size")
    given = [*tiny[:sizes], *tiny[sizes + 2 :], "--batch-sizes", "1,3"]
    assert main([*given, "--json", str(file)]) == MEASURED
    assert seen[-14:-2] == [(False, 1), (False, 3), (True, 1), (True, 3)] * 3
    numbers = json.loads(file.read_text())
    for name in VARIANTS[1:]:
        best = max(numbers["batch_sizes"][name].values())
        assert numbers[f"{name}_slices_per_s"] == pytest.approx(best)
    assert numbers["stages_batch_size"] == seen[-1][1]


def record_scoring(patch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Return a list that gets precision and size of each batch."""
    seen: list[tuple[bool, int]] = []
    score = Model.score

    def record(model: Model, images: list[object], class_names: list[str]) -> PatchScores:
        seen.append((model.bf16, len(images)))
        return score(model, images, class_names)

    patch.setattr(Model, "score", record)
    return seen


def test_a_detector_that_is_wrong_is_no_result(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = AdaClip.render

    def shifted(detector: AdaClip, *arguments: object) -> torch.Tensor:
        return render(detector, *arguments) + 1e-3

    monkeypatch.setattr(AdaClip, "render", shifted)
    assert main(tiny) == WENT_WRONG
    assert "too large a difference: map" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("--method", "crane", "--method crane: choose from aaclip, adaclip"),
        ("--batch-size", "0", "--batch-sizes 0: must be at least 1"),
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


def test_needs_no_ray_and_nothing_that_reads_files(tiny: list[str], tmp_path: Path) -> None:
    """On a machine with PyTorch and open_clip alone, a detector can still be measured."""
    missing = ["ray", "pydicom", "imagecodecs", "nibabel", "tifffile", "s3fs", "highdicom", "isal"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
from jobs.benchmark import main
from jobs.benchmarking import flops
flops.CPU_PRODUCTS = ((64, 64, 64),)
sys.exit(main(sys.argv[1:]))
"""
    file = tmp_path / "numbers.json"
    command = [sys.executable, "-c", code, *tiny, "--json", str(file)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=one_thread, check=True, capture_output=True)
    assert json.loads(file.read_text())["detector_fp32_slices_per_s"] > 0
