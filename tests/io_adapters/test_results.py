"""The output layout: commits, tables, ranking."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from io_adapters import results
from io_adapters.scan import FileRef, Kind, ScanRef
from io_adapters.tables import SCORES_SCHEMA, Record


def make_ref(name: str = "a", size: int = 10, version: str = "1") -> ScanRef:
    file = FileRef(uri=f"/in/{name}", size=size, version=version)
    return ScanRef(
        kind=Kind.IMAGE, uri=file.uri, files=(file,), scan_id=name, study_id=name, label=name
    )


def make_record(name: str, score: float | None, study: str | None = None) -> Record:
    fields = dict.fromkeys(SCORES_SCHEMA.names)
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
    results.write_run(out, {"finished": None})
    assert [record["score"] for record in results.earlier_records(out)] == [0.2]
    assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["map.tiff", "scan.json"]


def test_a_folder_without_a_whole_commit_is_no_result(tmp_path: Path) -> None:
    for name, content in (("cut", '{"scan_id": "cut", "fing'), ("other", '{"scan_id": "x"}')):
        folder = tmp_path / "scans" / name / name
        folder.mkdir(parents=True)
        (folder / "scan.json").write_text(content)
    (tmp_path / "scans" / "none" / "none").mkdir(parents=True)
    results.write_run(str(tmp_path), {})
    assert list(results.earlier_records(str(tmp_path))) == []


def test_an_empty_output_has_no_results_and_no_run(tmp_path: Path) -> None:
    assert list(results.earlier_records(str(tmp_path / "nowhere"))) == []
    assert results.earlier_failures(str(tmp_path / "nowhere")) == []
    assert results.read_run(str(tmp_path / "nowhere")) is None


def test_results_of_a_run_that_ended_come_from_its_table(tmp_path: Path) -> None:
    out = str(tmp_path)
    results.write_tables(out, [make_record("a", 0.1), make_record("b", None)], [], [])
    results.write_run(out, {"finished": "2026-01-01T00:00:00+00:00"})
    found = {record["scan_id"]: record for record in results.earlier_records(out)}
    assert found == {"a": make_record("a", 0.1), "b": make_record("b", None)}


def test_what_a_run_committed_before_it_was_cut_off_comes_after_the_table(tmp_path: Path) -> None:
    out = str(tmp_path)
    results.commit_scan(out, "scans/old/old", make_record("old", 0.1), {})
    commit = tmp_path / "scans" / "old" / "old" / "scan.json"
    commit.write_text("nobody reads this again")
    os.utime(commit, (1e9, 1e9))
    results.write_tables(out, [make_record("old", 0.1), make_record("a", 0.2)], [], [])
    results.commit_scan(out, "scans/a/a", make_record("a", 0.3), {})
    results.write_run(out, {"started": "2026-01-02T00:00:00+00:00"})
    found = [(record["scan_id"], record["score"]) for record in results.earlier_records(out)]
    assert found == [("old", 0.1), ("a", 0.2), ("a", 0.3)]


def test_a_retracted_result_is_gone(tmp_path: Path) -> None:
    out = str(tmp_path)
    record = make_record("a", 0.1)
    results.commit_scan(out, results.record_folder(record), record, {"map.tiff": b"1"})
    results.retract_scan(out, record)
    assert not (tmp_path / "scans" / "a" / "a").exists()


def test_run_json_is_read_back(tmp_path: Path) -> None:
    results.write_run(str(tmp_path), RUN)
    assert results.read_run(str(tmp_path)) == json.loads(json.dumps(RUN))
