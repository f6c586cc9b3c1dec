"""Publishing without Ray and without a detector."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from stage_runs import pictures, scores_of, stage_settings

from io_adapters.scan import ScanError
from jobs import publishing
from jobs.publishing import AT_ONCE, Publisher
from jobs.reading import read_row
from jobs.rows import Batch, column
from jobs.stages import StageSettings

GRID = 12
PATIENCE_S = 30.0


@pytest.fixture
def settings(tiny_checkpoint: Path, tmp_path: Path) -> StageSettings:
    return stage_settings(tiny_checkpoint, tmp_path / "out")


def scored(folder: Path, count: int) -> Batch:
    """Return rows of pictures, scored by nobody."""
    rows = []
    for n, (ref, meta) in enumerate(pictures(folder, count)):
        row = {"scan_id": ref.scan_id, "ref": ref.to_json(), "meta": json.dumps(meta)}
        rows.append(
            read_row(row | {"failure": ""})
            | {
                "patch_maps": np.full((1, GRID, GRID), n, np.float32),
                "image_scores": np.full(1, n, np.float32),
            }
        )
    return {name: column([row[name] for row in rows]) for name in rows[0]}


def test_the_scans_of_a_block_wait_for_storage_together(
    settings: StageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_at_once = threading.Barrier(AT_ONCE)
    monkeypatch.setattr(publishing, "commit_scan", lambda *_: all_at_once.wait(PATIENCE_S))
    batch = scored(tmp_path / "in", AT_ONCE)
    outcomes = [json.loads(o) for o in Publisher(settings.publisher)(batch)["outcome"]]
    assert list(scores_of(outcomes)) == list(batch["scan_id"])


def test_a_scan_that_cannot_be_written_is_a_failure_and_the_others_are_not(
    settings: StageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = publishing.commit_scan

    def refuse(output: str, folder: str, record: dict, files: dict) -> None:
        if record["scan_id"] == "image-1":
            raise ScanError("the bucket is full")
        commit(output, folder, record, files)

    monkeypatch.setattr(publishing, "commit_scan", refuse)
    batch = scored(tmp_path / "in", 3)
    first, second, third = map(json.loads, Publisher(settings.publisher)(batch)["outcome"])
    failure = second["failure"]
    assert (failure["stage"], failure["message"]) == ("write", "the bucket is full")
    for outcome in (first, third):
        assert (tmp_path / "out" / outcome["record"]["map"]).is_file()


def test_what_failed_before_is_passed_on(settings: StageSettings, tmp_path: Path) -> None:
    batch = scored(tmp_path / "in", 2)
    batch["failure"] = ["told before", ""]
    told, written = Publisher(settings.publisher)(batch)["outcome"]
    assert told == "told before"
    assert "record" in json.loads(written)
