"""The tables of a run: what goes in comes out, and what is missing stays missing."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from test_results import make_record

from io_adapters import tables
from io_adapters.scan import Failure, Stage

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20)


def test_scores_are_read_back_and_missing_values_stay_missing(tmp_path: Path) -> None:
    records = [make_record("a", 0.25), make_record("b", None)]
    file = tmp_path / "scores.parquet"
    file.write_bytes(tables.encode_scores(iter(records)))
    assert [row["score"] for row in pq.read_table(file).to_pylist()] == [0.25, None]
    assert list(tables.read_scores(str(file))) == records


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    file.write_bytes(tables.encode_scores([]))
    assert pq.read_schema(file).names == tables.SCORES_SCHEMA.names
    assert list(tables.read_scores(str(file))) == []


def test_more_rows_than_are_in_memory_at_once_are_all_written(tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    count = tables._ROWS + 1
    file.write_bytes(tables.encode_scores(make_record(str(n), 0.5) for n in range(count)))
    assert [row["scan_id"] for row in tables.read_scores(str(file))] == list(map(str, range(count)))


@given(uri=TEXT, message=TEXT, scan_id=st.one_of(st.none(), st.just("scan-1")))
def test_any_failure_is_read_back(
    tmp_path_factory, uri: str, message: str, scan_id: str | None
) -> None:
    file = tmp_path_factory.getbasetemp() / "failures.csv"
    failure = Failure(
        uri=uri, stage=Stage.READ, error_class="UnreadableError", message=message, scan_id=scan_id
    )
    file.write_bytes(tables.encode_failures([failure]))
    assert tables.read_failures(str(file)) == [failure]


def test_a_study_has_a_row_and_its_kinds_are_words() -> None:
    study = {
        "study_id": "s", "label": "s", "score": None, "n_scans": 2, "kinds": ["dicom", "nifti"],
        "worst_scan": "a",
    }  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(tables.encode_studies([study]).decode()))
    assert (row["kinds"], row["score"]) == ("dicom nifti", "")
