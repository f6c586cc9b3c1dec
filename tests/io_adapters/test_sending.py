"""Results are sent to a PACS once, whatever happens on the way."""

from __future__ import annotations

import json
from pathlib import Path

import dicom_files as files
import numpy as np
import pytest
from scripted_server import Answer, Server, in_turn, scripted_server

from io_adapters import dicomweb, sending
from io_adapters.results import Record, commit_scan, record_folder
from io_adapters.scan import Failure, Stage
from io_adapters.sending import GIVE_UP_AFTER, Sender

REFUSED = Answer(400)


def committed(output: Path, scan_id: str, *names: str) -> Record:
    """Commit a scan with DICOM files of these names."""
    record = {"study_id": "study", "scan_id": scan_id, "uri": f"/in/{scan_id}", "fingerprint": "x"}
    content = {name: result(f"{files.ROOT}9.{n}") for n, name in enumerate(names)}
    content |= {"map.nii.gz": b"no DICOM"}
    commit_scan(str(output), record_folder(record), record, content)
    return record


def result(uid: str) -> bytes:
    return files.encode(files.make_instance(np.zeros((4, 4), np.int16), SOPInstanceUID=uid))


def send(output: Path, records: list[Record], *archives: str) -> list[Failure]:
    with Sender(str(output), archives) as sender:
        for record in records:
            sender.add(record)
        return sender.finish()


def stored(server: Server) -> int:
    return sum(path.startswith("POST") for path in server.asked)


def found() -> Answer:
    """Say nothing of what was stored, and that all that is asked for is there."""
    return Answer(body=b"{}")


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb.time, "sleep", lambda _: None)


def test_dicom_files_are_sent_once_and_nothing_else_is(tmp_path: Path) -> None:
    record = committed(tmp_path, "a", "seg.dcm", "sc_1.dcm")
    with scripted_server(found()) as server:
        assert send(tmp_path, [record], server.uri) == []
        assert stored(server) == 2
        assert send(tmp_path, [record], server.uri) == []
        assert stored(server) == 2
        sent = json.loads((tmp_path / record_folder(record) / "sent.json").read_text())
        assert sent == {server.uri: ["sc_1.dcm", "seg.dcm"]}


def test_every_pacs_gets_them(tmp_path: Path) -> None:
    record = committed(tmp_path, "a", "seg.dcm")
    with scripted_server(found()) as one, scripted_server(found()) as two:
        assert send(tmp_path, [record], one.uri, two.uri) == []
        assert stored(one) == stored(two) == 1
        assert send(tmp_path, [record], one.uri, two.uri) == []
        assert stored(one) == stored(two) == 1


def test_what_was_refused_is_a_failure_and_is_sent_next_time(tmp_path: Path) -> None:
    record = committed(tmp_path, "a", "one.dcm", "two.dcm")
    with scripted_server(in_turn(found(), found(), REFUSED)) as server:
        (failure,) = send(tmp_path, [record], server.uri)
        assert failure.stage is Stage.SEND and failure.scan_id == "a" and failure.uri == "/in/a"
        assert failure.message.startswith("1 of the scan's DICOM results were not stored: 127.0.0")
        server.answer = in_turn(found())
        before = stored(server)
        assert send(tmp_path, [record], server.uri) == []
        assert stored(server) == before + 1


def test_one_pacs_that_refuses_does_not_keep_results_from_another(tmp_path: Path) -> None:
    record = committed(tmp_path, "a", "seg.dcm")
    with scripted_server(REFUSED) as bad, scripted_server(found()) as good:
        (failure,) = send(tmp_path, [record], bad.uri, good.uri)
        assert f":{bad.port}" in failure.message and stored(good) == 1


def test_a_scan_that_is_scored_anew_is_sent_anew(tmp_path: Path) -> None:
    with scripted_server(found()) as server:
        for _ in range(2):
            assert send(tmp_path, [committed(tmp_path, "a", "seg.dcm")], server.uri) == []
        assert stored(server) == 2


def test_a_pacs_that_takes_nothing_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_THREADS", 1)
    records = [committed(tmp_path, str(n), "seg.dcm") for n in range(GIVE_UP_AFTER + 5)]
    with scripted_server(REFUSED) as server:
        failures = send(tmp_path, records, server.uri)
        assert len(failures) == len(records) and stored(server) == GIVE_UP_AFTER


def test_a_file_that_is_no_dicom_after_all_is_a_failure_that_quotes_nothing(tmp_path: Path) -> None:
    record = committed(tmp_path, "a", "seg.dcm")
    (tmp_path / record_folder(record) / "seg.dcm").write_bytes(b"ZEBRA" * 99)
    with scripted_server(found()) as server:
        (failure,) = send(tmp_path, [record], server.uri)
        assert stored(server) == 0 and "ZEBRA" not in failure.message


def test_without_a_pacs_nothing_is_read(tmp_path: Path) -> None:
    assert send(tmp_path, [{"nothing": "at all"}]) == []
