"""The tables of a run: a row a scan, a row a study, a row a failure; streamed in and out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from io_adapters import storage
from io_adapters.scan import Failure, Stage

SCORES, STUDIES, FAILURES = "scores.parquet", "studies.csv", "failures.csv"
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
_ROWS = 4096
"""Rows that are in memory at once."""


def encode_scores(records: Iterable[Record]) -> bytes:
    """Return the rows of scans as a Parquet file; what a record has beyond the columns is left."""
    rows = iter(records)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCORES_SCHEMA, compression="zstd") as writer:
        while part := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(part, schema=SCORES_SCHEMA))
    return buffer.getvalue()


def read_scores(uri: str) -> Iterator[Record]:
    """Yield the rows of scans of a Parquet file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such table (pyarrow's errors are ValueErrors).
    """
    with pq.ParquetFile(io.BytesIO(storage.read_bytes(uri))) as table:
        for part in table.iter_batches(_ROWS):
            yield from part.to_pylist()


def encode_studies(studies: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the rows of studies as CSV."""
    return _csv(STUDY_COLUMNS, ({**study, "kinds": " ".join(study["kinds"])} for study in studies))


def encode_failures(failures: Iterable[Failure]) -> bytes:
    """Return the rows of failures as CSV."""
    rows = ({name: getattr(failure, name) for name in FAILURE_COLUMNS} for failure in failures)
    return _csv(FAILURE_COLUMNS, rows)


def read_failures(uri: str) -> list[Failure]:
    """Return the failures of a CSV file.

    Raises:
        OSError: it cannot be read.
    """
    text = io.StringIO(storage.read_bytes(uri).decode(), newline="")
    return [
        Failure(**row | {"stage": Stage(row["stage"]), "scan_id": row["scan_id"] or None})
        for row in csv.DictReader(text)
    ]


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
