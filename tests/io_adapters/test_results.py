"""The output layout: commits, tables, ranking."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from io_adapters import results
from io_adapters.scan import Failure, FileRef, Kind, ScanRef, Stage


def make_ref(name: str = "a", size: int = 10, version: str = "1") -> ScanRef:
    file = FileRef(uri=f"/in/{name}", size=size, version=version)
    return ScanRef(
        kind=Kind.IMAGE, uri=file.uri, files=(file,), scan_id=name, study_id=name, label=name
    )


def make_record(name: str, score: float | None, study: str | None = None) -> results.Record:
    fields = dict.fromkeys(results.SCORES_SCHEMA.names)
    return fields | {
        "study_id": study or name,
        "scan_id": name,
        "label": name,
        "kind": "image",
        "domain": "industrial",
        "class_name": "object",
        "uri": f"/in/{name}",
        "shape": [1, 2, 3],
        "n_slices": 1,
        "n_scored": 1,
        "score": score,
        "top_slice": 0,
        "slice_scores": [score],
        "flags": [],
        "map": f"scans/{name}/{name}/map.tiff",
        "overlay": f"scans/{name}/{name}/overlay.png",
        "fingerprint": "f",
    }


RUN = {
    "model": {"method": "aaclip", "backbone": "tiny", "heat": [0.0, 1.0], "note": None},
    "settings": {"input": ["/in"], "keep_ids": False},
    "versions": {},
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:00+00:00",
    "seconds": 60.0,
    "slices_per_second": None,
    "counts": {"listed": 3, "committed": 2, "resumed": 0, "failed": 1, "ignored": {}},
}


@pytest.mark.parametrize("other", [make_ref(size=11), make_ref(version="2"), make_ref(name="b")])
def test_fingerprint_changes_with_the_files(other: ScanRef) -> None:
    assert results.fingerprint(make_ref(), {}) == results.fingerprint(make_ref(), {})
    assert results.fingerprint(make_ref(), {}) != results.fingerprint(other, {})


def test_fingerprint_changes_with_the_settings() -> None:
    prints = {results.fingerprint(make_ref(), {"precision": p}) for p in ("fp32", "bf16")}
    assert len(prints) == 2


def test_a_commit_is_found_again_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    out, folder = str(tmp_path), results.scan_folder(make_ref())
    results.commit_scan(out, folder, make_record("a", 0.1), {"map.tiff": b"1", "old.png": b"2"})
    results.commit_scan(out, folder, make_record("a", 0.2), {"map.tiff": b"3"})
    assert results.committed_scans(out)["a"]["score"] == 0.2
    assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["map.tiff", "scan.json"]


def test_a_folder_without_a_whole_commit_is_no_result(tmp_path: Path) -> None:
    for name, content in (("cut", '{"scan_id": "cut", "fing'), ("other", '{"scan_id": "x"}')):
        folder = tmp_path / "scans" / name / name
        folder.mkdir(parents=True)
        (folder / "scan.json").write_text(content)
    (tmp_path / "scans" / "none" / "none").mkdir(parents=True)
    assert results.committed_scans(str(tmp_path)) == {}


def test_an_empty_output_has_no_commits_and_no_run(tmp_path: Path) -> None:
    assert results.committed_scans(str(tmp_path / "nowhere")) == {}
    assert results.read_run(str(tmp_path / "nowhere")) is None


def test_a_study_scores_as_its_worst_scan_and_missing_scores_come_last() -> None:
    records = [
        make_record("low", 0.1, "s1"),
        make_record("none", None),
        make_record("high", 0.9, "s1"),
        make_record("middle", 0.5),
    ]
    ranked = sorted(records, key=results._most_anomalous_first)
    studies = results.rank_studies(ranked)
    assert [study["score"] for study in studies] == [0.9, 0.5, None]
    assert (studies[0]["study_id"], studies[0]["n_scans"]) == ("s1", 2)
    assert studies[0]["worst_scan"] == "high"


def test_tables_keep_missing_values_missing(tmp_path: Path) -> None:
    failure = Failure(
        uri="/in/x,y.png", stage=Stage.READ, error_class="UnreadableError", message='"cut"'
    )
    records = [make_record("a", 0.25), make_record("b", None)]
    page = results.write_tables(str(tmp_path), RUN, records, [failure])
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["score"] for row in rows] == [0.25, None]
    assert rows[0]["p_value"] is None
    failures = list(csv.DictReader(io.StringIO((tmp_path / "failures.csv").read_text())))
    assert failures[0]["uri"] == "/in/x,y.png"
    assert failures[0]["message"] == '"cut"'
    assert Path(page).is_file()


def test_run_json_is_read_back(tmp_path: Path) -> None:
    results.write_run(str(tmp_path), RUN)
    assert results.read_run(str(tmp_path)) == json.loads(json.dumps(RUN))
