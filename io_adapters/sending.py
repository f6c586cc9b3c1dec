"""Results go back: the DICOM files of committed scans are sent to the PACS that are to have them.

`sent.json` beside a scan's results says what is stored where. What is named there is not sent
again; what is not, because a PACS was away, is sent by the next run. A scan that is scored anew has
a new folder without it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath

from io_adapters import dicomweb, storage
from io_adapters.dicomweb_uri import host_of
from io_adapters.results import record_folder
from io_adapters.scan import Failure, ScanError, Stage, UnreadableError
from io_adapters.tables import Record

SENT = "sent.json"
GIVE_UP_AFTER = 10
"""Scans in a row whose results a PACS did not take, after which it is not asked again."""
_THREADS = 4

Sent = dict[str, list[str]]
"""PACS → names of the files that it has."""


class Sender:
    """Sends the results of one scan after the other, while others are scored."""

    def __init__(self, output: str, archives: Sequence[str]) -> None:
        """Prepare; without archives nothing is ever sent.

        Args:
            output: The folder of the run's results.
            archives: URIs of DICOMweb services.
        """
        self._output, self._archives = output, archives
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: list[Future[list[Failure]]] = []
        self._refused_in_a_row: Counter[str] = Counter()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, record: Record) -> None:
        """Send the results of a committed scan, those that are not stored yet."""
        if self._archives:
            self._pending.append(self._pool.submit(self._send, record))

    def finish(self) -> list[Failure]:
        """Wait until everything is sent; return a failure for each scan and PACS without it."""
        return [failure for sending in self._pending for failure in sending.result()]

    def _send(self, record: Record) -> list[Failure]:
        folder = storage.join(self._output, record_folder(record))
        failures: list[Failure] = []
        for archive in self._archives:
            try:
                self._send_to(archive, folder)
            except Exception as error:
                failures.append(_failure(record, error))
        return failures

    def _send_to(self, archive: str, folder: str) -> None:
        if self._refused_in_a_row[archive] >= GIVE_UP_AFTER:
            raise UnreadableError(f"{host_of(archive)} took none of {GIVE_UP_AFTER} scans' results")
        stored = _read_sent(folder).get(archive, [])
        files = {PurePosixPath(file.uri).name: file.uri for file in storage.list_files(folder)}
        missing = [name for name in files if name.endswith(".dcm") and name not in stored]
        new: list[str] = []
        try:
            for name in missing:
                dicomweb.store(archive, storage.read_bytes(files[name]))
                new.append(name)
                self._refused_in_a_row[archive] = 0
        except ScanError as error:
            self._refused_in_a_row[archive] += 1
            left = f"{len(missing) - len(new)} of the scan's DICOM results were not stored"
            raise UnreadableError(f"{left}: {error}") from None
        finally:
            if new:
                _write_sent(folder, {archive: sorted([*stored, *new])})


def _read_sent(folder: str) -> Sent:
    uri = storage.join(folder, SENT)
    if not storage.exists(uri):
        return {}
    sent: Sent = json.loads(storage.read_bytes(uri))
    return sent


def _write_sent(folder: str, sent: Sent) -> None:
    content = json.dumps(_read_sent(folder) | sent, indent=1).encode()
    storage.put_bytes(storage.join(folder, SENT), content)


def _failure(record: Record, error: Exception) -> Failure:
    return Failure(
        uri=record["uri"],
        stage=Stage.SEND,
        error_class=type(error).__name__,
        message=str(error)
        if isinstance(error, ScanError)
        else "the scan's DICOM results cannot be read back",
        scan_id=record["scan_id"],
    )
