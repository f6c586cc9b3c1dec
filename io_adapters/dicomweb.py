"""A PACS over DICOMweb: searched by a query, read instance by instance, sent what was made of it.

Who asks is told by the environment alone, for every PACS of a run (`dicomweb_uri.USER`, …). What a
PACS answers holds names and what it is asked holds UIDs: neither is quoted in a message or logged.
"""

from __future__ import annotations

import functools
import io
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from io_adapters.dicomweb_uri import (
    PASSWORD,
    TOKEN,
    USER,
    Query,
    host_of,
    parse_query,
    root_of,
    url_of,
)
from io_adapters.parsers import guarded, silence
from io_adapters.prefetch import map_ordered
from io_adapters.scan import FileRef, ScanError, UnreadableError, UnsupportedError

PAGE = 100
"""Studies or series that are asked for at once."""
TIMEOUT_S = (10.0, 120.0)
"""To connect, and between two bytes of an answer: some archives fetch a tape first."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each new attempt, unless the PACS asks for more."""
LONGEST_WAIT_S = 120.0
MAX_INSTANCE_BYTES = 2 * 2**30
THREADS = 8

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_AS_STORED = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",  # Orthanc would gzip, which takes 20 times as long as the rest
}
_NOBODY = {"StudyInstanceUID": "2.25.0"}
_DUPLICATE = 0x0111
"""The failure reason of an instance that the PACS has already."""

Result = TypeVar("Result")


class PacsError(UnreadableError):
    """A PACS did not do what it was asked; the message names its host, and nothing it said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """What a PACS tells about a series."""

    uri: str
    instances: Sequence[tuple[FileRef, Dataset]] = ()
    """Where each instance is, and its header; always in the same order."""
    error: ScanError | None = None
    """Why nothing is known of them."""


def reach(uri: str) -> None:
    """Ask a PACS for one study, to learn at once what would fail every request.

    Raises:
        PacsError: it cannot be reached, or refuses the query or whoever asks.
    """
    query = parse_query(uri)
    keys = dict(query.studies) or _NOBODY  # some refuse to search for everything
    with guarded(f"the answer of {host_of(query.root)}"):
        client = _client(query.root)
        find = functools.partial(client.search_for_studies, limit=1, search_filters=keys)
        _ask(query.root, find, waits=())


def search(uri: str, *, attributes: Sequence[str] = ()) -> Iterator[list[Series]]:
    """Yield the matching studies of a PACS, each as its matching series, as they are found.

    Args:
        uri: Of a service, a study or a series, with a query or without one.
        attributes: Keywords of what the headers of instances are to hold.

    Raises:
        ValueError: the URI makes no sense.
        PacsError: the PACS does not answer, or refuses the query.
    """
    query = parse_query(uri)
    client = _client(query.root)
    find = functools.partial(client.search_for_studies, search_filters=dict(query.studies))
    uids = _pages(query.root, "0020000D", find)
    list_study = functools.partial(_list_study, query, ("SOPInstanceUID", *attributes))
    yield from map_ordered(list_study, uids, threads=THREADS, ahead=2 * THREADS)


def retrieve(uri: str) -> bytes:
    """Return an instance as the PACS holds it, in the transfer syntax that it was stored in.

    Args:
        uri: Of an instance, as `search` makes them.

    Raises:
        PacsError: it was not delivered.
        UnsupportedError: it is larger than an instance may be.
    """
    root = root_of(uri)
    return _ask(root, lambda: _download(root, url_of(uri)))


def store(uri: str, content: bytes) -> None:
    """Send a DICOM file to a PACS; that it has it already is as good.

    Args:
        uri: Of the service.
        content: The file.

    Raises:
        PacsError: it is not there now.
    """
    root = root_of(uri)
    with guarded(f"what {host_of(root)} was sent or says of it"):
        dataset = pydicom.dcmread(io.BytesIO(content))
        answer = _ask(root, lambda: _store(root, dataset))
        reasons = [item.get("FailureReason") for item in answer.get("FailedSOPSequence") or ()]
        if reasons and reasons != [_DUPLICATE]:
            raise PacsError(f"{host_of(root)} refused the instance ({_hexadecimal(reasons[0])})")
        stored = [item.ReferencedSOPInstanceUID for item in answer.get("ReferencedSOPSequence", ())]
        if not reasons and dataset.SOPInstanceUID not in stored:
            _check_stored(root, dataset)


def _list_study(query: Query, attributes: Sequence[str], study: str) -> list[Series]:
    client = _client(query.root)
    find = functools.partial(client.search_for_series, study, search_filters=dict(query.series))
    uids = sorted(_pages(query.root, "0020000E", find))
    return [_list_series(query.root, study, uid, attributes) for uid in uids]


def _list_series(root: str, study: str, series: str, attributes: Sequence[str]) -> Series:
    """List a series by its metadata, which is complete, unlike the answers to searches."""
    uri = f"{root}/studies/{quote(study, safe='')}/series/{quote(series, safe='')}"
    try:
        with guarded(f"what {host_of(root)} says of a series"):
            told = _ask(root, lambda: _client(root).retrieve_series_metadata(study, series))
            instances = [_instance(uri, fields, attributes) for fields in told]
    except ScanError as error:
        return Series(uri=uri, error=error)
    return Series(uri=uri, instances=sorted(instances, key=lambda instance: instance[0].uri))


def _instance(
    series_uri: str, fields: Mapping[str, Any], attributes: Sequence[str]
) -> tuple[FileRef, Dataset]:
    """Return where an instance is, and what is asked for of its header."""
    tags = {f"{tag_for_keyword(keyword):08X}" for keyword in attributes}
    header = Dataset.from_json({tag: fields[tag] for tag in tags & fields.keys()})
    uid = str(header.SOPInstanceUID)
    uri = f"{series_uri}/instances/{quote(uid, safe='')}"
    return FileRef(uri=uri, size=0, version=uid), header  # other content would have another UID


def _pages(root: str, tag: str, find: Callable[..., list[dict[str, Any]]]) -> Iterator[str]:
    """Yield the UIDs of a search, page by page until one brings nothing new.

    A short page is no end: a PACS may keep itself to fewer than it is asked for.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        with guarded(f"what {host_of(root)} found"):
            found = _ask(root, functools.partial(find, limit=PAGE, offset=offset))
            uids = [str(item[tag]["Value"][0]) for item in found]
        new = [uid for uid in dict.fromkeys(uids) if uid not in seen]
        if not new and len(uids) >= PAGE:
            raise PacsError(f"{host_of(root)} repeats its first {PAGE} answers: ask for less")
        if not new:
            return
        yield from new
        seen.update(new)
        offset += len(uids)


def _ask(root: str, call: Callable[[], Result], *, waits: Sequence[float] = WAITS_S) -> Result:
    """Call again until it succeeds, as long as what goes wrong may pass.

    Raises:
        PacsError: it does not succeed.
    """
    for wait in (*waits, None):
        try:
            return call()
        except requests.RequestException as error:
            if wait is None or not _may_pass(error):
                raise PacsError(_explain(root, error)) from None
            time.sleep(max(wait * random.uniform(0.5, 1.5), _wait_asked_for(error)))
    raise AssertionError("unreachable")


def _may_pass(error: requests.RequestException) -> bool:
    if error.response is not None:
        return error.response.status_code in _PASSING
    lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, lost) and not isinstance(error, requests.exceptions.SSLError)


def _wait_asked_for(error: requests.RequestException) -> float:
    """Return for how many seconds a busy PACS wants to be left alone."""
    seconds = error.response.headers.get("Retry-After", "") if error.response is not None else ""
    return min(float(seconds), LONGEST_WAIT_S) if seconds.isdecimal() else 0.0


def _explain(root: str, error: requests.RequestException) -> str:
    host, path = host_of(root), url_of(root).partition(host_of(root))[2] or "/"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{host} has no certificate that is trusted here: name its CA in REQUESTS_CA_BUNDLE"
    if isinstance(error, requests.exceptions.JSONDecodeError | _NotDicomError):
        return f"{host} answers with something else than DICOM: is {path} its DICOMweb service?"
    if error.response is None:
        return f"{host} does not answer ({type(error).__name__}): check host and port"
    status = error.response.status_code
    remedies = {
        400: "check the keys and values of the query",
        401: f"set {USER} and {PASSWORD}, or {TOKEN}",
        403: f"whom {USER} or {TOKEN} names is not allowed to",
        404: f"is {path} its DICOMweb service, and is what is asked for still there?",
    }
    return f"{host} answers with HTTP status {status}: {remedies.get(status, 'see its log')}"


class _NotDicomError(requests.RequestException):
    """An answer is sound, and no DICOM."""


class _Bearer(AuthBase):
    """A token as the `auth` of a session, which a line of ~/.netrc does not replace."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _session() -> requests.Session:
    """Return the one session of this process."""
    return _session_of(*(os.environ.get(name, "") for name in (USER, PASSWORD, TOKEN)))


@functools.lru_cache(maxsize=1)
def _session_of(user: str, password: str, token: str) -> requests.Session:
    silence()
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=2 * THREADS))
    if token:
        session.auth = _Bearer(token)
    elif user:
        session.auth = (user, password)
    return session


def _client(root: str) -> DICOMwebClient:
    client = DICOMwebClient(url_of(root), _session(), permissive_uid=True, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # its own know nothing of lost connections
    client.set_chunk_size(MAX_INSTANCE_BYTES)  # not every server takes a body of unknown length
    client.host = host_of(root)  # it would leave the port out of the header Host
    return client


def _download(root: str, url: str) -> bytes:
    """Return the one instance that a URL delivers."""
    body = bytearray()
    with _session().get(url, headers=_AS_STORED, stream=True, timeout=TIMEOUT_S) as response:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            body += chunk
            if len(body) > MAX_INSTANCE_BYTES:
                raise UnsupportedError(f"{host_of(root)} sends an instance of over {len(body)} B")
    return single_part(response.headers.get("Content-Type", ""), bytes(body))


def single_part(content_type: str, body: bytes) -> bytes:
    """Return the content of a multipart message of one part; an instance without one is taken too.

    Raises:
        requests.RequestException: it is something else.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/related" or not boundary:
        raise _NotDicomError
    mark = b"--" + boundary.encode()
    start = body.find(b"\r\n\r\n", body.find(mark)) + 4
    end = body.find(b"\r\n" + mark, start)
    if start < 4 or end < 0 or not body.startswith(b"--", end + 2 + len(mark)):
        raise _NotDicomError
    return body[start:end]


def _store(root: str, dataset: Dataset) -> Dataset:
    """Send an instance; return the PACS's account of it, also one of failure."""
    try:
        return _client(root).store_instances([dataset])
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code != HTTPStatus.CONFLICT:
            raise
        return Dataset.from_json(error.response.json())


def _check_stored(root: str, dataset: Dataset) -> None:
    """Look an instance up in a PACS that took it without a word.

    Raises:
        PacsError: it is not there.
    """
    study, series = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
    uid = str(dataset.SOPInstanceUID)
    try:
        _ask(root, lambda: _client(root).retrieve_instance_metadata(study, series, uid))
    except PacsError:
        raise PacsError(f"{host_of(root)} took the instance and does not have it") from None


def _hexadecimal(reason: int | None) -> str:
    return "it gives no reason" if reason is None else f"failure reason {reason:04X}H"
