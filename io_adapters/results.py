"""The output layout: commit a scan, find what is committed, finish a run.

    OUT/run.json  scores.parquet  studies.csv  failures.csv  report/index.html  catalogue.parquet
    OUT/scans/<study>/<scan>/  map.nii.gz | map.tiff   overlay.png   *.dcm   scan.json
    OUT/runs/<time>/           run.json, tables and index.html of what one run added

`scan.json` is the commit: a scan's folder without it is not a result. Everything is named after
the scan, so that writing twice changes nothing. The tables hold all results that ever came here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from io_adapters import storage
from io_adapters.prefetch import map_ordered
from io_adapters.report.page import Ranking, render_report
from io_adapters.scan import Failure, FileRef, ScanRef
from io_adapters.tables import (
    FAILURES,
    SCORES,
    STUDIES,
    Record,
    encode_failures,
    encode_scores,
    encode_studies,
    read_failures,
    read_scores,
)

COMMIT = "scan.json"
RUN = "run.json"
PAGE = "index.html"


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


def retract_scan(output: str, record: Record) -> None:
    """Remove a result: its scan has changed, and could not be scored again."""
    storage.delete_folder(storage.join(output, record_folder(record)))


def earlier_records(output: str) -> Iterator[Record]:
    """Yield the results that earlier runs left; where a scan comes twice, the later one counts.

    They are in the table of the last run that ended. What a run committed that was cut off is newer
    than the table, and looked for in the folders of scans; a broken record is no commit.
    """
    table = _file(storage.join(output, SCORES))
    if table:
        yield from read_scores(table.uri)
    run, root = read_run(output), storage.join(output, "scans")
    if run and not run.get("finished") and storage.exists(root):
        since = (table.modified if table else None) or 0.0
        commits = (
            file.uri
            for file in storage.list_files(root)
            if file.uri.endswith(f"/{COMMIT}") and (file.modified is None or file.modified >= since)
        )
        yield from filter(None, map_ordered(_read_record, commits, threads=16, ahead=64))


def earlier_failures(output: str) -> list[Failure]:
    """Return the failures that the last run left."""
    uri = storage.join(output, FAILURES)
    return read_failures(uri) if storage.exists(uri) else []


def write_tables(
    folder: str,
    records: Iterable[Record],
    studies: Iterable[Mapping[str, Any]],
    failures: Iterable[Failure],
) -> None:
    """Write the three tables; rows come in the order that they are to have."""
    for name, content in (
        (SCORES, encode_scores(records)),
        (STUDIES, encode_studies(studies)),
        (FAILURES, encode_failures(failures)),
    ):
        storage.put_bytes(storage.join(folder, name), content)


def write_report(
    folder: str, run: Mapping[str, Any], ranking: Ranking, *, of_this_run: bool
) -> str:
    """Write the report on all results, or on what one run added; returns the URI of its page.

    Args:
        folder: OUT, or OUT/runs/<time>.
        run: What `run.json` will hold.
        ranking: What there is to report.
        of_this_run: Which of the two it is.
    """
    output, tables, page = ("../../", "", PAGE) if of_this_run else ("../", "../", f"report/{PAGE}")
    uri = storage.join(folder, page)
    storage.put_bytes(uri, render_report(run, ranking, output=output, tables=tables).encode())
    return uri


def read_run(output: str) -> dict[str, Any] | None:
    """Return the `run.json` of an earlier run, None where there is none."""
    uri = storage.join(output, RUN)
    return json.loads(storage.read_bytes(uri)) if storage.exists(uri) else None


def write_run(folder: str, run: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    content = json.dumps(run, indent=1, default=str, allow_nan=False).encode()
    storage.put_bytes(storage.join(folder, RUN), content)


def _file(uri: str) -> FileRef | None:
    return next(storage.list_files(uri)) if storage.exists(uri) else None


def _read_record(uri: str) -> Record | None:
    try:
        record: Record = json.loads(storage.read_bytes(uri))
        return record if "fingerprint" in record else None
    except (OSError, ValueError):
        return None
