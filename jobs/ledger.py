"""The ledger of a run: what is to be scored, what has a result, what failed.

It lies on the driver's disk, as a SQLite file that ends with the run, so that an archive of
millions of scans needs no more memory than one of ten. What has to outlive the run is in the output
folder.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import numpy as np

from io_adapters.report.page import MAX_FAILURES, MAX_STUDIES, Ranking
from io_adapters.scan import Failure, ScanRef, Stage
from io_adapters.scratch import scratch_database
from io_adapters.tables import Record

Meta = dict[str, Any]
"""class_name, domain, plane, window, crop and fingerprint of a scan's result."""

_AT_ONCE = 1000
"""Rows that are fetched together."""
_TABLES = """
    CREATE TABLE scan (
        n INTEGER PRIMARY KEY,
        scan_id TEXT UNIQUE NOT NULL,
        state TEXT NOT NULL,
        ref TEXT, meta TEXT,                                     -- while it is to be scored
        fingerprint TEXT, study_id TEXT, kind TEXT, domain TEXT,
        label TEXT, score REAL, record TEXT                      -- once it has a result
    );
    CREATE INDEX by_state ON scan (state);
    CREATE TABLE failure (
        n INTEGER PRIMARY KEY,
        uri TEXT NOT NULL, stage TEXT NOT NULL, error_class TEXT NOT NULL, message TEXT NOT NULL,
        scan_id TEXT, earlier INTEGER NOT NULL
    );
"""


class State(StrEnum):
    """What a run knows of a scan."""

    EARLIER = "earlier"
    """Scored by an earlier run, and not met in this one."""
    KEPT = "kept"
    """Scored by an earlier run, and unchanged since."""
    TODO = "todo"
    SCORED = "scored"
    FAILED = "failed"
    """If it has a result, that is one of an earlier version."""


class Ledger:
    """Scans and failures of a run."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.row_factory = sqlite3.Row

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Ledger]:
        """Open an empty ledger, which is gone at the end."""
        with scratch_database(_TABLES) as database:
            yield cls(database)

    def remember(self, records: Iterable[Record], failures: Iterable[Failure]) -> None:
        """Take in what earlier runs left: their results, and what failed then."""
        for record in records:
            self._put_result(record, State.EARLIER)
        for failure in failures:
            self._put_failure(failure, earlier=True)

    def plan(self, ref: ScanRef, meta: Meta) -> bool:
        """Take in a scan of this run; tells whether it has to be scored."""
        found = self._db.execute(
            "SELECT state, fingerprint FROM scan WHERE scan_id = ?", (ref.scan_id,)
        ).fetchone()
        if found and found["fingerprint"] == meta["fingerprint"]:
            self._set_state(ref.scan_id, State.KEPT)
            return False
        self._db.execute(
            "INSERT INTO scan (scan_id, state, ref, meta) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (scan_id) DO UPDATE "
            "SET state = excluded.state, ref = excluded.ref, meta = excluded.meta",
            (ref.scan_id, State.TODO, ref.to_json(), json.dumps(meta)),
        )
        return True

    def todo(self) -> Iterator[tuple[ScanRef, Meta]]:
        """Yield what is to be scored, in the order of planning; results may come in meanwhile."""
        for row in self._pages("SELECT n, ref, meta FROM scan WHERE state = ?", State.TODO):
            yield ScanRef.from_json(row["ref"]), json.loads(row["meta"])

    def commit(self, record: Record) -> None:
        """Note the result of a scan."""
        self._put_result(record, State.SCORED)

    def fail(self, failure: Failure) -> None:
        """Note a failure; a scan whose results only could not be sent keeps them."""
        self._put_failure(failure, earlier=False)
        if failure.scan_id is not None and failure.stage is not Stage.SEND:
            self._set_state(failure.scan_id, State.FAILED)

    def drop_earlier_failures(self, is_settled: Callable[[str], bool]) -> None:
        """Forget failures of earlier runs that this one has tried again or made up for.

        Args:
            is_settled: tells of a URI whether this run has met it, if it is still there.
        """
        self._db.execute(
            "DELETE FROM failure WHERE earlier AND (stage = ? OR scan_id IN "
            "(SELECT scan_id FROM scan WHERE state <> ?) OR "
            "uri IN (SELECT uri FROM failure WHERE NOT earlier))",
            (Stage.SEND, State.EARLIER),
        )
        rows = self._db.execute("SELECT n, uri FROM failure WHERE earlier").fetchall()
        settled = [(row["n"],) for row in rows if is_settled(row["uri"])]
        self._db.executemany("DELETE FROM failure WHERE n = ?", settled)

    def count(self, *states: State) -> int:
        """Return how many scans are in one of some states."""
        return int(self._one(f"SELECT count(*) FROM scan WHERE state IN {_marks(states)}", *states))

    def count_failures(self, *, of_this_run: bool, sending: bool) -> int:
        """Return how many failures there are, those of sending results or the others."""
        condition = "stage = ?" if sending else "stage <> ?"
        query = f"SELECT count(*) FROM failure WHERE {condition} AND earlier <= ?"
        return int(self._one(query, Stage.SEND, not of_this_run))

    def records(self, *states: State) -> Iterator[Record]:
        """Yield the results of scans in some states, in no order of merit."""
        query = f"SELECT n, record FROM scan WHERE state IN {_marks(states)} AND record NOT NULL"
        return (json.loads(row["record"]) for row in self._pages(query, *states))

    def ranked(self, *states: State) -> Iterator[Record]:
        """Yield the same, most anomalous first; nothing may be noted meanwhile."""
        rows = self._db.execute(
            f"SELECT record FROM scan WHERE state IN {_marks(states)} AND record NOT NULL "
            "ORDER BY score IS NULL, score DESC, scan_id",
            states,
        )
        return (json.loads(row["record"]) for row in rows)

    def studies(self, *states: State, limit: int = -1) -> Iterator[dict[str, Any]]:
        """Yield the studies of scans in some states, most anomalous first.

        A study scores as its worst scan. Rows have the columns of `studies.csv`.

        Args:
            states: of the scans that count.
            limit: how many at most; -1: all.
        """
        rows = self._db.execute(
            # SQLite takes the columns beside a lone max() from the row that has the maximum.
            "SELECT study_id, label, scan_id AS worst_scan, max(score) AS score, "
            "count(*) AS n_scans, group_concat(DISTINCT kind) AS kinds "
            f"FROM scan WHERE state IN {_marks(states)} AND record NOT NULL GROUP BY study_id "
            "ORDER BY max(score) IS NULL, max(score) DESC, study_id LIMIT ?",
            (*states, limit),
        )
        for row in rows:
            study = dict(row) | {"kinds": sorted(row["kinds"].split(","))}
            yield study if study["n_scans"] == 1 else study | {"label": study["study_id"]}

    def failures(self, *, of_this_run: bool, limit: int = -1) -> Iterator[Failure]:
        """Yield failures as they were noted, those of earlier runs first."""
        rows = self._db.execute(
            "SELECT uri, stage, error_class, message, scan_id FROM failure WHERE earlier <= ? "
            "ORDER BY n LIMIT ?",
            (not of_this_run, limit),
        )
        return (Failure(**dict(row) | {"stage": Stage(row["stage"])}) for row in rows)

    def ranking(self, *states: State, of_this_run: bool) -> Ranking:
        """Return what a report shows of scans in some states."""
        among = f"FROM scan WHERE state IN {_marks(states)} AND record NOT NULL"
        kinds = self._db.execute(f"SELECT kind, count(*) {among} GROUP BY kind", states)
        scores = self._db.execute(f"SELECT max(score) {among} GROUP BY study_id", states)
        studies = list(self.studies(*states, limit=MAX_STUDIES))
        shown = [study["study_id"] for study in studies]
        scans = self._db.execute(
            f"SELECT record {among} AND study_id IN {_marks(shown)}", (*states, *shown)
        )
        medical = self._one(f"SELECT count(*) {among} AND domain <> 'industrial'", *states)
        failures = self.failures(of_this_run=of_this_run, limit=MAX_FAILURES)
        return Ranking(
            kinds={kind: count for kind, count in kinds},
            medical=bool(medical),
            study_scores=np.array([np.nan if row[0] is None else row[0] for row in scores]),
            studies=studies,
            scans=[json.loads(row["record"]) for row in scans],
            failures=list(failures),
            n_failures=sum(
                self.count_failures(of_this_run=of_this_run, sending=sending)
                for sending in (False, True)
            ),
        )

    def _put_result(self, record: Record, state: State) -> None:
        columns = ("scan_id", "fingerprint", "study_id", "kind", "domain", "label", "score")
        values = [record[name] for name in columns]
        names = [*columns, "state", "record"]
        values += [state, json.dumps(record)]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        self._db.execute(
            f"INSERT INTO scan ({', '.join(names)}) VALUES {_marks(values)} "
            f"ON CONFLICT (scan_id) DO UPDATE SET ref = NULL, meta = NULL, {updates}",
            values,
        )

    def _put_failure(self, failure: Failure, *, earlier: bool) -> None:
        self._db.execute(
            "INSERT INTO failure (uri, stage, error_class, message, scan_id, earlier) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                failure.uri,
                failure.stage,
                failure.error_class,
                failure.message,
                failure.scan_id,
                earlier,
            ),
        )

    def _set_state(self, scan_id: str, state: State) -> None:
        self._db.execute("UPDATE scan SET state = ? WHERE scan_id = ?", (state, scan_id))

    def _one(self, query: str, *values: object) -> Any:
        return self._db.execute(query, values).fetchone()[0]

    def _pages(self, query: str, *values: object) -> Iterator[sqlite3.Row]:
        """Yield rows in the order of `n`; a page at a time, because states change meanwhile."""
        after = -1
        while True:
            page = f"{query} AND n > ? ORDER BY n LIMIT {_AT_ONCE}"
            rows = self._db.execute(page, (*values, after)).fetchall()
            yield from rows
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1]["n"]


def _marks(values: Iterable[object]) -> str:
    """Return placeholders for values: "(?, ?)"."""
    return f"({', '.join('?' for _ in values)})"
