"""The whole job: an archive in, a committed and ranked result out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from io_adapters import results
from io_adapters.scan import ScanRef
from jobs import run as run_module
from jobs.ledger import Meta
from jobs.score_dataset import SCORED, SOME_FAILED, WRONG_USAGE, main

pytestmark = pytest.mark.usefixtures("small_ray")


class Scored:
    """A finished run."""

    def __init__(self, output: Path, code: int) -> None:
        self.output, self.code = output, code
        self.rows = pq.read_table(output / "scores.parquet").to_pylist()
        self.run = json.loads((output / "run.json").read_text())
        self.failures = (output / "failures.csv").read_text().splitlines()[1:]

    def row(self, name: str) -> dict:
        return next(row for row in self.rows if row["uri"].endswith(name))


@pytest.fixture(scope="module")
def scored(
    archive: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scored:
    output = tmp_path_factory.mktemp("scored") / "out"
    arguments = ["--input", archive, "--output", output, "--checkpoint", tiny_checkpoint]
    return Scored(output, main([str(argument) for argument in arguments]))


def test_exit_code_says_that_some_inputs_failed(scored: Scored) -> None:
    assert scored.code == SOME_FAILED


def test_what_went_in_is_committed_or_failed(scored: Scored) -> None:
    counts = scored.run["counts"]
    assert counts["committed"] == len(scored.rows) == 5
    assert counts["failed"] == len(scored.failures) == 2
    assert counts["listed"] == 7
    assert counts["ignored"] == {".txt": 1}


def test_failures_name_the_file_and_the_reason(scored: Scored) -> None:
    reasons = {Path(line.split(",")[0]).name: line for line in scored.failures}
    assert "content is text" in reasons["text.png"]
    assert "UnreadableError" in reasons["half.dcm"]


def test_nifti_map_has_shape_and_affine_of_its_input(scored: Scored, archive: Path) -> None:
    source = nib.load(archive / "sub.nii.gz")
    result = nib.load(scored.output / scored.row("sub.nii.gz")["map"])
    assert result.shape == source.shape
    np.testing.assert_array_equal(result.affine, source.affine)


def test_dicom_map_has_the_grid_that_dcm2niix_gives_the_series(
    scored: Scored, archive: Path, tmp_path: Path
) -> None:
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", tmp_path, archive / "series"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    oracle = nib.load(tmp_path / "x.nii")
    result = nib.load(scored.output / scored.row("series")["map"])
    assert result.shape == oracle.shape
    np.testing.assert_allclose(result.affine, oracle.affine, atol=1e-3)


def test_blank_slices_have_no_score_and_no_map(scored: Scored) -> None:
    row = scored.row("sub.nii.gz")
    assert (row["n_slices"], row["n_scored"]) == (10, 8)
    assert [n for n, score in enumerate(row["slice_scores"]) if score is None] == [0, 5]
    result = nib.load(scored.output / row["map"]).get_fdata()
    assert np.isnan(result[:, :, 0]).all()
    assert np.isfinite(result[:, :, 1:]).all()


def test_image_map_is_float32_tiff_of_the_image_s_size(scored: Scored) -> None:
    stored = tifffile.imread(scored.output / scored.row("one.png")["map"])
    assert stored.shape == (40, 60)
    assert stored.dtype == np.float32


def test_dicom_series_have_dicom_results_and_other_scans_have_not(scored: Scored) -> None:
    for row in scored.rows:
        folder = (scored.output / row["map"]).parent
        record = json.loads((folder / "scan.json").read_text())
        assert record["dicom"] == sorted(path.name for path in folder.glob("*.dcm"))
        assert ("sc_001.dcm" in record["dicom"]) == (row["kind"] == "dicom")
        assert set(record["dicom_omitted"]) <= {"seg"}  # where the untrained model sees nothing


def test_tables_and_report_list_every_scan(scored: Scored) -> None:
    page = (scored.output / "report" / "index.html").read_text()
    for row in scored.rows:
        assert row["overlay"] in page
        assert (scored.output / row["overlay"]).is_file()
    assert len((scored.output / "studies.csv").read_text().splitlines()) == 6


def test_scans_are_ranked_most_anomalous_first(scored: Scored) -> None:
    ranking = [row["score"] for row in scored.rows]
    assert ranking == sorted(ranking, reverse=True)


def test_second_run_scores_nothing_again(
    scored: Scored, archive: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def stages(todo: Iterable[tuple[ScanRef, Meta]], *_: object) -> Iterator[dict]:
        tried.extend(Path(ref.uri).name for ref, _ in todo)
        return iter(())

    monkeypatch.setattr(run_module, "run_stages", stages)
    arguments = ["--input", archive, "--output", scored.output, "--checkpoint", tiny_checkpoint]
    assert main([str(argument) for argument in arguments]) == SOME_FAILED
    again = Scored(scored.output, SOME_FAILED)
    assert tried == ["half.dcm"]  # what failed is tried again, what is committed is not
    assert again.rows == scored.rows
    assert again.run["counts"]["resumed"] == 5


def test_other_settings_never_mix_with_earlier_results(
    scored: Scored, archive: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", archive, "--output", scored.output, "--checkpoint", tiny_checkpoint]
    code = main([*(str(argument) for argument in arguments), "--precision", "bf16"])
    assert code == WRONG_USAGE
    assert "another precision" in capsys.readouterr().err


def test_dry_run_writes_nothing_and_names_no_file(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", archive, "--output", tmp_path / "out", "--checkpoint", tiny_checkpoint]
    assert main([*(str(argument) for argument in arguments), "--dry-run"]) == SCORED
    printed = capsys.readouterr().out
    assert "6 scans" in printed
    assert "sub.nii" not in printed
    assert not (tmp_path / "out").exists()


def test_a_lost_scan_becomes_a_failure(
    archive: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "run_stages", lambda *_: iter(()))
    arguments = ["--input", archive, "--output", tmp_path, "--checkpoint", tiny_checkpoint]
    assert main([str(argument) for argument in arguments]) == SOME_FAILED
    lost = [line for line in Scored(tmp_path, SOME_FAILED).failures if "LostScan" in line]
    assert len(lost) == 6


def test_uncommitted_folder_is_no_result(scored: Scored, tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "study" / "scan"
    folder.mkdir(parents=True)
    (folder / "map.tiff").write_bytes(b"half a map")
    results.write_run(str(tmp_path), {})
    assert list(results.earlier_records(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere"], "no file or folder"),
        (["--checkpoint", "nowhere.safetensors"], "no checkpoint at"),
        (["--limit", "0"], "--limit 0"),
        (["--clip", "nowhere.pt"], "--clip nowhere.pt"),
        (["--class-name", "nut", "--class-from", "folder"], "exclude each other"),
        (["--class-from", "nowhere.csv"], "--class-from"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_setting(
    arguments: list[str],
    message: str,
    archive: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = ["--input", archive, "--output", tmp_path / "out", "--checkpoint", tiny_checkpoint]
    assert main([*(str(argument) for argument in usual), *arguments]) == WRONG_USAGE
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1
