"""The output layout: commit a scan, find what is committed, finish a run.

    OUT/run.json  scores.parquet  studies.csv  failures.csv  report/index.html
    OUT/scans/<study>/<scan>/  map.nii.gz | map.tiff   overlay.png   *.dcm   scan.json

`scan.json` is the commit: a scan's folder without it is not a result. Everything is named after
the scan, so that writing twice changes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from io_adapters import storage
from io_adapters.report.page import render_report
from io_adapters.scan import Failure, ScanRef

COMMIT = "scan.json"
Record = dict[str, Any]
"""What `scan.json` holds, and a row of `scores.parquet`."""

SCORES_SCHEMA = pa.schema(
    [
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("scan_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("modality", pa.string()),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("spacing_mm", pa.list_(pa.float64())),
        pa.field("n_slices", pa.int32()),
        pa.field("n_scored", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("top_slice", pa.int32()),
        pa.field("slice_scores", pa.list_(pa.float64())),
        pa.field("p_value", pa.float64()),
        pa.field("flagged", pa.bool_()),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("map", pa.string()),
        pa.field("overlay", pa.string()),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
STUDY_COLUMNS = ("study_id", "label", "score", "n_scans", "kinds", "worst_scan")
FAILURE_COLUMNS = ("uri", "stage", "error_class", "message", "scan_id")


def fingerprint(ref: ScanRef, settings: Mapping[str, Any]) -> str:
    """Return what a result depends on, as 32 hex digits: the scan's bytes and how it is scored."""
    files = [(file.uri, file.size, file.version) for file in ref.files]
    described = json.dumps([files, settings], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]


def scan_folder(ref: ScanRef) -> str:
    """Return the folder of a scan's results, relative to OUT."""
    return f"scans/{ref.study_id}/{ref.scan_id}"


def record_folder(record: Record) -> str:
    """Return the same of a scan that is committed."""
    return f"scans/{record['study_id']}/{record['scan_id']}"


def commit_scan(output: str, folder: str, record: Record, files: Mapping[str, bytes]) -> None:
    """Write a scan's files and, last, its record."""
    content = json.dumps(record, indent=1, allow_nan=False).encode()
    storage.put_folder(storage.join(output, folder), {**files, COMMIT: content}, commit=COMMIT)


def committed_scans(output: str) -> dict[str, Record]:
    """Return the records of all committed scans by scan id; a broken record is no commit."""
    root = storage.join(output, "scans")
    if not storage.exists(root):
        return {}
    commits = [file.uri for file in storage.list_files(root) if file.uri.endswith(f"/{COMMIT}")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        records = [record for record in pool.map(_read_record, commits) if record]
    return {record["scan_id"]: record for record in records}


def read_run(output: str) -> dict[str, Any] | None:
    """Return the `run.json` of an earlier run, None where there is none."""
    uri = storage.join(output, "run.json")
    return json.loads(storage.read_bytes(uri)) if storage.exists(uri) else None


def write_run(output: str, run: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    content = json.dumps(run, indent=1, default=str, allow_nan=False).encode()
    storage.put_bytes(storage.join(output, "run.json"), content)


def write_tables(
    output: str, run: Mapping[str, Any], records: Sequence[Record], failures: Sequence[Failure]
) -> str:
    """Write the tables and the report of a run; returns the URI of the report's page."""
    ranked = sorted(records, key=_most_anomalous_first)
    studies = rank_studies(ranked)
    failed = [{name: getattr(f, name) for name in FAILURE_COLUMNS} for f in failures]
    page = render_report(dict(run), studies, ranked, failed)
    outputs = {
        "scores.parquet": _parquet(ranked),
        "studies.csv": _csv(STUDY_COLUMNS, [s | {"kinds": " ".join(s["kinds"])} for s in studies]),
        "failures.csv": _csv(FAILURE_COLUMNS, failed),
        "report/index.html": page.encode(),
    }
    for name, content in outputs.items():
        storage.put_bytes(storage.join(output, name), content)
    return storage.join(output, "report/index.html")


def rank_studies(ranked: Sequence[Record]) -> list[dict[str, Any]]:
    """Group ranked scans into studies, most anomalous first; a study scores as its worst scan."""
    studies: dict[str, list[Record]] = {}
    for record in ranked:
        studies.setdefault(record["study_id"], []).append(record)
    return [
        {
            "study_id": study_id,
            "label": scans[0]["label"] if len(scans) == 1 else study_id,
            "score": scans[0]["score"],
            "n_scans": len(scans),
            "kinds": sorted({scan["kind"] for scan in scans}),
            "worst_scan": scans[0]["scan_id"],
        }
        for study_id, scans in studies.items()
    ]


def _most_anomalous_first(record: Record) -> tuple[bool, float, str]:
    score = record["score"]
    return score is None, -(score or 0.0), record["scan_id"]


def _read_record(uri: str) -> Record | None:
    try:
        record: Record = json.loads(storage.read_bytes(uri))
        return record if "fingerprint" in record else None
    except (OSError, ValueError):
        return None


def _parquet(records: Sequence[Record]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records), schema=SCORES_SCHEMA), buffer)
    return buffer.getvalue()


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
