"""A prefix that grows, scored night after night into the same output."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.score_dataset import SCORED, SOME_FAILED, WRONG_USAGE, main

pytestmark = pytest.mark.usefixtures("without_ray")


class Night:
    """What one run left."""

    def __init__(self, output: Path) -> None:
        self.folder = max((output / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        self.run = json.loads((self.folder / "run.json").read_text())
        self.new = names(self.folder)
        self.all = names(output)
        self.failed = failures(self.folder)
        self.failed_ever = failures(output)


def names(folder: Path) -> list[str]:
    uris = pq.read_table(folder / "scores.parquet", columns=["uri"])["uri"].to_pylist()
    return sorted(Path(uri).name for uri in uris)


def failures(folder: Path) -> list[str]:
    rows = csv.DictReader((folder / "failures.csv").open(newline=""))
    return sorted(Path(row["uri"]).name for row in rows)


class Line:
    """A production line: pictures come in, and a run scores them."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.pictures, self.output, self.checkpoint = folder / "in", folder / "out", checkpoint
        self.pictures.mkdir()

    def take(self, name: str, seed: int = 0) -> Path:
        pixels = np.random.default_rng([seed, *name.encode()]).integers(0, 255, (20, 20))
        path = self.pictures / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    def score(self, *more: str, code: int = SCORED, source: Path | None = None) -> Night:
        arguments = ["--input", source or self.pictures, "--output", self.output, *more]
        arguments += ["--checkpoint", self.checkpoint]
        assert main([str(argument) for argument in arguments]) == code
        return Night(self.output)

    def rows(self) -> dict[str, dict]:
        """Return what is told of each picture so far."""
        found = pq.read_table(self.output / "scores.parquet").to_pylist()
        return {Path(row["uri"]).name: row for row in found}


@pytest.fixture
def line(tmp_path: Path, tiny_checkpoint: Path) -> Line:
    return Line(tmp_path, tiny_checkpoint)


def test_a_night_scores_what_is_new_and_its_table_lies_beside_that_of_all(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    line.take("a.png")
    line.take("b.png")
    assert line.score().new == ["a.png", "b.png"]
    assert capsys.readouterr().out.count("report: ") == 1

    line.take("c.png")
    second = line.score()
    assert (second.new, second.all) == (["c.png"], ["a.png", "b.png", "c.png"])
    counts = second.run["counts"]
    assert (counts["listed"], counts["committed"], counts["resumed"]) == (3, 3, 2)
    page = (second.folder / "index.html").read_text()
    assert "c.png" in page
    assert "a.png" not in page
    assert str(second.folder / "index.html") in capsys.readouterr().out


def test_results_of_another_prefix_stay_in_the_table_of_all(line: Line) -> None:
    monday, tuesday = line.take("monday/a.png").parent, line.take("tuesday/b.png").parent
    line.score(source=monday)
    second = line.score(source=tuesday)
    assert (second.new, second.all) == (["b.png"], ["a.png", "b.png"])
    assert second.run["counts"]["from_earlier_runs"] == 1
    assert len(list(line.output.glob("scans/*/*/scan.json"))) == 2


def test_a_night_without_anything_new_has_empty_tables(line: Line) -> None:
    line.take("a.png")
    line.score()
    second = line.score()
    assert (second.new, second.all) == ([], ["a.png"])


def test_a_changed_picture_is_scored_again_and_the_others_are_not(line: Line) -> None:
    line.take("a.png")
    line.take("b.png")
    line.score()
    before = line.rows()
    line.take("b.png", seed=1)
    second, after = line.score(), line.rows()
    assert (second.new, second.run["counts"]["resumed"]) == (["b.png"], 1)
    assert after["a.png"] == before["a.png"]
    assert after["b.png"]["fingerprint"] != before["b.png"]["fingerprint"]


def test_a_changed_picture_that_is_broken_now_has_no_result_any_more(line: Line) -> None:
    picture = line.take("a.png")
    line.take("b.png")
    line.score()
    picture.write_bytes(picture.read_bytes()[:200])
    second = line.score(code=SOME_FAILED)
    assert (second.all, second.failed) == (["b.png"], ["a.png"])
    assert len(list(line.output.glob("scans/*/*/scan.json"))) == 1
    line.take("a.png", seed=1)
    third = line.score()
    assert (third.new, third.all) == (["a.png"], ["a.png", "b.png"])
    assert third.failed_ever == []


def test_since_leaves_out_what_is_older_and_keeps_what_it_said(line: Line) -> None:
    old, new = line.take("old.png"), line.take("new.png")
    broken = line.pictures / "broken.png"
    broken.write_text("no picture")
    for path in (old, broken):
        os.utime(path, (1e9, 1e9))
    first = line.score("--since", "1h")
    assert (first.new, first.failed) == (["new.png"], [])
    assert first.run["counts"]["left_out"] == 2
    line.score(code=SOME_FAILED)
    new.write_bytes(old.read_bytes())
    third = line.score("--since", "1h")
    assert (third.new, third.all) == (["new.png"], ["new.png", "old.png"])
    assert (third.failed, third.failed_ever) == ([], ["broken.png"])


def test_failures_of_other_prefixes_stay_and_those_of_deleted_files_go(line: Line) -> None:
    monday, tuesday = (line.take(f"{day}/a.png") for day in ("monday", "tuesday"))
    (monday.parent / "broken.png").write_text("no picture")
    assert line.score(source=monday.parent, code=SOME_FAILED).failed == ["broken.png"]
    second = line.score(source=tuesday.parent)
    assert (second.failed, second.failed_ever) == ([], ["broken.png"])
    (monday.parent / "broken.png").unlink()
    assert line.score(source=monday.parent).failed_ever == []


def test_what_was_committed_before_a_run_was_cut_off_is_not_scored_again(line: Line) -> None:
    line.take("a.png")
    line.take("b.png")
    line.score()
    run = json.loads((line.output / "run.json").read_text())
    del run["finished"]
    (line.output / "run.json").write_text(json.dumps(run))  # as a run leaves it that was killed
    (line.output / "scores.parquet").unlink()
    shutil.rmtree(next(path.parent for path in line.output.glob("scans/b*/*/scan.json")))
    second = line.score()
    assert (second.new, second.all) == (["b.png"], ["a.png", "b.png"])


def test_another_model_never_adds_to_the_results_of_this_one(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    line.take("a.png")
    first = line.score()
    arguments = ["--input", line.pictures, "--output", line.output, "--checkpoint", "tiny"]
    assert main([str(argument) for argument in arguments]) == WRONG_USAGE
    assert "another model" in capsys.readouterr().err
    assert Night(line.output).run == first.run
