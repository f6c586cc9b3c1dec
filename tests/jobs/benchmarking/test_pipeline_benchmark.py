"""The benchmark of the whole job: one small run with Ray, and its parts without.

pytest tests/jobs/benchmarking/test_pipeline_benchmark.py -m slow
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from io_adapters.display import to_display
from io_adapters.readers import read_scan
from io_adapters.scan import FileRef, Kind, ScanRef
from jobs import benchmark
from jobs.benchmark import MEASURED, WENT_WRONG
from jobs.benchmarking import job_run, pipeline
from jobs.benchmarking.archive import KINDS, write_archive
from jobs.benchmarking.job_run import JobRun, run_job
from jobs.benchmarking.pipeline import PipelineResult
from jobs.benchmarking.result import HEADLINES, MeasurementError

SMALL = [
    *("--pipeline", "--slices", "10", "--slices-per-scan", "2", "--scan-size", "32"),
    *("--bare-seconds", "0.2", "--price-per-hour", "3.6"),
]
A_RUN = JobRun(
    began=100.0,
    first_work=110.0,
    commits=((115.0, 10), (118.0, 6), (120.0, 4)),
    ended=125.0,
    driver_bytes=400_000_000,
    worker_bytes=900_000_000,
    failed=False,
)


@pytest.fixture(scope="module")
def numbers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of the benchmark wrote."""
    file = tmp_path_factory.mktemp("pipeline") / "numbers.json"
    arguments = [*SMALL, "--checkpoint", str(tiny_checkpoint), "--json", str(file)]
    assert benchmark.main(arguments) == MEASURED
    return json.loads(file.read_text())


@pytest.mark.slow
def test_all_drawn_slices_are_scored(numbers: dict[str, Any]) -> None:
    assert (numbers["scans"], numbers["slices"]) == (5, 10)


@pytest.mark.slow
def test_the_parts_of_the_run_add_up_to_the_command(numbers: dict[str, Any]) -> None:
    parts = [numbers[name] for name in ("startup_s", "scoring_s", "finish_s")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(numbers["command_s"])


@pytest.mark.slow
def test_the_rate_is_that_of_the_scoring_alone(numbers: dict[str, Any]) -> None:
    assert numbers["pipeline_slices_per_s"] == pytest.approx(10 / numbers["scoring_s"])
    assert numbers["machine_seconds_per_1000_slices"] == {
        "pipeline": pytest.approx(100 * numbers["scoring_s"])
    }
    assert numbers["cost_per_1000_slices"]["pipeline"] == pytest.approx(0.1 * numbers["scoring_s"])


@pytest.mark.slow
def test_the_ratio_is_to_the_detector_before_and_after(numbers: dict[str, Any]) -> None:
    before, after = numbers["bare_detector_slices_per_s"]
    ratio = numbers["pipeline_slices_per_s"] / ((before + after) / 2)
    assert numbers["ratio_pipeline_over_detector"] == pytest.approx(ratio)
    assert 0 < numbers["ratio_command_over_detector"] < ratio


@pytest.mark.slow
def test_memory_is_that_of_processes_with_torch(numbers: dict[str, Any]) -> None:
    for name in ("driver_rss_mb", "worker_rss_mb"):
        assert 100 < numbers[name] < 10_000


@pytest.mark.slow
def test_headlines_of_other_benchmarks_are_null(numbers: dict[str, Any]) -> None:
    assert set(HEADLINES) <= set(numbers)
    assert numbers["plain_fp32_slices_per_s"] is None
    assert numbers["fraction_of_matmul_peak"] is None


def test_moments_and_commits_make_the_rates() -> None:
    assert (A_RUN.scans, A_RUN.slices) == (3, 20)
    assert (A_RUN.startup_s, A_RUN.scoring_s, A_RUN.finish_s) == (10, 10, 5)
    assert A_RUN.rate == 2.0
    assert A_RUN.later_rate == 2.0  # 10 slices in the 5 seconds after the first commit


def test_the_table_compares_with_the_mean_of_both_measurements() -> None:
    result = PipelineResult(run=A_RUN, detector=(2.0, 3.0))
    assert result.ratio == 0.8
    rows = dict(line.rsplit(maxsplit=2)[::2] for line in result.as_text().splitlines()[1:6])
    assert rows["pipeline"] == "0.800"
    assert rows["whole command"] == "0.320"
    assert "10.0 to start, 10.0 to read, score and write, 5.0 to finish" in result.as_text()


FAKE_JOB = """
import json, pathlib, subprocess, sys
output = pathlib.Path(sys.argv[1])
if {works}:
    subprocess.run(["bash", "-c", "exec -a 'ray::MapWorker(Read).submit' sleep 0.3"])
for number, slices in enumerate({scored}):
    (output / "scans" / "study" / str(number)).mkdir(parents=True)
    record = output / "scans" / "study" / str(number) / "scan.json"
    record.write_text(json.dumps({{"n_scored": slices}}))
sys.exit({code})
"""


def run_fake(
    folder: Path, patch: pytest.MonkeyPatch, *, code: int, scored: list[int], works: bool = True
) -> JobRun:
    job = folder / "job.py"
    job.write_text(FAKE_JOB.format(code=code, scored=scored, works=works))
    patch.setattr(job_run, "JOB", job)
    return run_job([str(folder)], folder)


def test_what_a_job_committed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_fake(tmp_path, monkeypatch, code=0, scored=[3, 4])
    assert (run.scans, run.slices, run.failed) == (2, 7, False)
    assert run.began < run.first_work < run.commits[0][0] < run.ended


@pytest.mark.parametrize(
    ("code", "scored", "works", "told"),
    [
        (1, [3], True, "exit code 1"),
        (0, [], True, "scored nothing"),
        (0, [3], False, "no worker was seen at work"),
    ],
)
def test_a_job_that_broke_off_is_no_measurement(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    scored: list[int],
    works: bool,
    told: str,
) -> None:
    with pytest.raises(MeasurementError, match=told):
        run_fake(tmp_path, monkeypatch, code=code, scored=scored, works=works)


def test_failed_scans_are_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_fake(tmp_path, monkeypatch, code=3, scored=[3])
    monkeypatch.setattr(pipeline, "prepare", lambda *_, **__: [])
    monkeypatch.setattr(pipeline, "run_job", lambda *_: run)
    monkeypatch.setattr(pipeline, "_measure_bare", lambda *_: 2.0)
    assert benchmark.main([*SMALL, "--checkpoint", "tiny"]) == WENT_WRONG
    assert capsys.readouterr().err == "error: scans failed\n"


def test_an_archive_holds_scans_of_all_kinds_and_no_blank_slice(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    assert write_archive(folder, slices=11, per_scan=2, size=32) == 6
    entries = sorted(folder.iterdir())
    assert [entry.is_dir() for entry in entries] == [kind != "nifti" for kind in (*KINDS, KINDS[0])]
    counts = []
    for entry in entries:
        display = to_display(read_scan(ref_of(entry)))
        counts.append(len(display))
        assert display.shape[1:] == (32, 32, 1)
        assert all(plane.min() < plane.max() for plane in display)
    assert counts == [2, 2, 2, 2, 2, 1]
    assert nib.load(entries[1]).get_data_dtype() == np.int16


def ref_of(entry: Path) -> ScanRef:
    files = sorted(entry.iterdir()) if entry.is_dir() else [entry]
    return ScanRef(
        kind=Kind.DICOM if entry.is_dir() else Kind.NIFTI,
        uri=str(entry),
        files=tuple(FileRef(uri=str(f), size=f.stat().st_size, version="") for f in files),
        scan_id="a",
        study_id="a",
        label="a",
    )
