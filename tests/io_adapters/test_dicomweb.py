"""A PACS that misbehaves: every request ends in what was asked for, or in one line that helps."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import dicom_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import free_ports
from requests import RequestException
from scripted_server import Answer, scripted_server

from io_adapters import dicomweb
from io_adapters.dicomweb import PacsError, reach, retrieve, search, single_part, store
from io_adapters.scan import ScanError, UnsupportedError

BELOW = "/studies/1.2/series/1.3/instances/1.4"
MULTIPART = {"Content-Type": 'multipart/related; type="application/dicom"; boundary="b"'}
HTML = Answer(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"})
CANARY = "ZEBRA"


def instance(**attributes: object) -> bytes:
    return files.encode(files.make_instance(np.zeros((4, 4), np.int16), **attributes))


def wrapped(content: bytes) -> bytes:
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"


def found(tag: str, *uids: str) -> Answer:
    return Answer(body=json.dumps([{tag: {"vr": "UI", "Value": [uid]}} for uid in uids]).encode())


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(dicomweb.time, "sleep", waited.append)
    return waited


# Reading


def test_an_instance_comes_as_it_was_stored() -> None:
    with scripted_server(Answer(body=wrapped(instance()), headers=MULTIPART)) as server:
        assert retrieve(server.uri + BELOW) == instance()
    assert server.asked == [f"GET /dicom-web{BELOW}"]
    assert "transfer-syntax=*" in server.headers[0]["Accept"]
    assert server.headers[0]["Accept-Encoding"] == "identity"
    assert server.headers[0]["Host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int, waits: list[float]) -> None:
    good = Answer(body=wrapped(instance()), headers=MULTIPART)
    with scripted_server(Answer(status), Answer(status), good) as server:
        assert retrieve(server.uri + BELOW) == instance()
    assert len(server.asked) == 3 and len(waits) == 2


def test_a_lost_connection_is_tried_again() -> None:
    cut = Answer(body=wrapped(instance()), headers=MULTIPART, cut=True)
    with scripted_server(cut, Answer(body=wrapped(instance()), headers=MULTIPART)) as server:
        assert retrieve(server.uri + BELOW) == instance()
    assert len(server.asked) == 2


def test_a_busy_pacs_is_left_alone_for_as_long_as_it_says(waits: list[float]) -> None:
    busy = Answer(429, headers={"Retry-After": "60"})
    with scripted_server(busy, Answer(body=wrapped(instance()), headers=MULTIPART)) as server:
        retrieve(server.uri + BELOW)
    assert waits == [60]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(401), "401: set ZSAD_DICOMWEB_USER and ZSAD_DICOMWEB_PASSWORD"),
        (Answer(403), "403: whom ZSAD_DICOMWEB_USER"),
        (Answer(404), "404: is /dicom-web its DICOMweb service"),
        (Answer(500), "500: see its log"),
        (HTML, "something else than DICOM: is /dicom-web its DICOMweb service"),
        (Answer(body=b"--b\r\n\r\n", headers=MULTIPART), "something else than DICOM"),
        (Answer(body=b"12", headers=MULTIPART, cut=True), "does not answer (ChunkedEncodingError)"),
    ],
)
def test_what_goes_wrong_is_one_line_that_names_host_and_remedy(
    answer: Answer, message: str
) -> None:
    with scripted_server(answer) as server, pytest.raises(PacsError) as error:
        retrieve(server.uri + BELOW)
    text = str(error.value)
    assert message in text and f"127.0.0.1:{server.port}" in text
    assert "\n" not in text and "1.4" not in text


def test_nobody_there_is_one_line_that_names_the_host() -> None:
    (port,) = free_ports(1)
    with pytest.raises(PacsError, match=rf"127.0.0.1:{port} does not answer .*: check host and"):
        retrieve(f"dicomweb+http://127.0.0.1:{port}/w{BELOW}")


def test_a_plain_server_behind_an_encrypted_uri_is_not_tried_in_the_clear() -> None:
    with scripted_server(Answer()) as server:
        uri = server.uri.replace("dicomweb+http", "dicomweb")
        with pytest.raises(PacsError, match=r"no certificate that is trusted|does not answer"):
            reach(uri)
    assert server.asked == []


def test_too_large_an_instance_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "MAX_INSTANCE_BYTES", 100)
    with (
        scripted_server(Answer(body=wrapped(instance()), headers=MULTIPART)) as server,
        pytest.raises(UnsupportedError, match="over"),
    ):
        retrieve(server.uri + BELOW)


@given(content=st.binary(max_size=300))
def test_a_part_is_taken_out_of_its_message_whole(content: bytes) -> None:
    head = b"preamble\r\n--x y\r\nContent-Type: application/dicom\r\n\r\n"
    body = head + content + b"\r\n--x y--\r\n"
    assert single_part('Multipart/Related; boundary="x y"', body) == content
    assert single_part("application/dicom; transfer-syntax=*", content) == content


@given(body=st.binary(max_size=60), kind=st.sampled_from([*MULTIPART.values(), "", "text/html"]))
def test_no_message_is_taken_for_another(body: bytes, kind: str) -> None:
    with pytest.raises(RequestException):
        single_part(kind, b"--b\r\n" + body.replace(b"--", b""))


def test_two_instances_in_one_message_are_not_taken_for_one() -> None:
    body = wrapped(b"1").removesuffix(b"--\r\n") + wrapped(b"2").removeprefix(b"--b")
    with pytest.raises(RequestException):
        single_part(MULTIPART["Content-Type"], body)


# Searching


def test_pages_are_asked_for_until_one_brings_nothing_new() -> None:
    one, two = found("0020000D", "1.1", "1.2"), found("0020000D", "1.3")
    with scripted_server(one, two, found("0020000D")) as server:
        uids = list(dicomweb._pages(server.uri, "0020000D", _studies(server.uri)))
    assert uids == ["1.1", "1.2", "1.3"]
    offsets = [path.partition("offset=")[2].partition("&")[0] for path in server.asked]
    assert offsets == ["0", "2", "3"]


def test_a_pacs_that_cannot_turn_pages_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 2)
    with (
        scripted_server(found("0020000D", "1.1", "1.2")) as server,
        pytest.raises(PacsError, match="repeats its first 2 answers"),
    ):
        list(dicomweb._pages(server.uri, "0020000D", _studies(server.uri)))


def by_path(answers: dict[str, Answer]) -> Callable[[str], Answer]:
    """Answer by path below the service, with nothing on second pages."""

    def answer(path: str) -> Answer:
        below, _, query = path.removeprefix("/dicom-web").partition("?")
        return answers[below] if "offset=" not in query or "offset=0" in query else Answer()

    return answer


def _studies(root: str) -> Callable[..., list[dict]]:
    return dicomweb._client(root).search_for_studies


@pytest.mark.parametrize("answer", [HTML, Answer(body=b'[{"00100010": 1}]'), Answer(body=b"{}")])
def test_an_answer_that_makes_no_sense_is_an_error(answer: Answer) -> None:
    with scripted_server(answer) as server, pytest.raises(ScanError):
        list(search(server.uri))


def test_nothing_found_is_nothing() -> None:
    with scripted_server(Answer(), Answer(204, b"")) as server:
        assert list(search(server.uri)) == []
        assert list(search(server.uri)) == []


def test_a_series_that_is_not_told_of_leaves_the_others() -> None:
    nameless = Answer(body=json.dumps([{"00080060": {"vr": "CS", "Value": ["CT"]}}]).encode())
    answers = {
        "/studies": found("0020000D", "1.1"),
        "/studies/1.1/series": found("0020000E", "2.1", "2.2"),
        "/studies/1.1/series/2.1/metadata": nameless,
        "/studies/1.1/series/2.2/metadata": found("00080018", "3.2", "3.1"),
    }
    with scripted_server(by_path(answers)) as server:
        ((bad, good),) = search(server.uri)
    assert bad.error is not None and not bad.instances
    assert [file.version for file, _ in good.instances] == ["3.1", "3.2"]
    uris = [file.uri for file, _ in good.instances]
    assert uris[0] == f"{server.uri}/studies/1.1/series/2.2/instances/3.1"


# Who asks


def test_user_and_password_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSAD_DICOMWEB_USER", "ada")
    monkeypatch.setenv("ZSAD_DICOMWEB_PASSWORD", "x")
    with scripted_server(Answer()) as server:
        reach(server.uri)
    assert server.headers[0]["Authorization"] == "Basic YWRhOng="


def test_a_token_is_sent_in_place_of_anything_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:  # noqa: PTH123
        file.write("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", netrc)
    monkeypatch.setenv("ZSAD_DICOMWEB_TOKEN", "abc")
    with scripted_server(Answer()) as server:
        reach(server.uri)
    assert server.headers[0]["Authorization"] == "Bearer abc"


# Storing


def account(*stored: str, failed: dict[str, int] | None = None, status: int = 200) -> Answer:
    """Return what a PACS says of what it was sent."""

    def sequence(tag: str, items: list[dict]) -> dict:
        return {tag: {"vr": "SQ", "Value": items}} if items else {}

    named = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]
    refused = [
        {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
        for uid, reason in (failed or {}).items()
    ]
    body = sequence("00081199", named) | sequence("00081198", refused)
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/dicom+json"})


UID = files.ROOT + "3.1"


@pytest.mark.parametrize(
    "answers",
    [[account(UID)], [account(failed={UID: 0x0111}, status=409)], [Answer(503), account(UID)],
     [Answer(200, b""), found("00080018", UID)]],
    ids=["stored", "there already", "busy first", "stored without a word"],
)  # fmt: skip
def test_what_is_there_afterwards_was_stored(answers: list[Answer]) -> None:
    with scripted_server(*answers) as server:
        store(server.uri, instance())
    posts = [body for body, path in zip(server.bodies, server.asked, strict=True) if "POST" in path]
    assert all(instance() in body for body in posts)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([account(failed={UID: 0xA700}, status=409)], "refused the instance .failure reason A700H"),
        ([account(failed={UID: 0xC000}, status=202)], "refused the instance .failure reason C000H"),
        ([Answer(400)], "400"),
        ([Answer(401)], "ZSAD_DICOMWEB_USER"),
        ([HTML, Answer(404)], "does not have it"),
        ([account("1.2.3"), Answer(404)], "does not have it"),
    ],
    ids=["conflict", "accepted in part", "bad", "refused", "a login page", "another instance"],
)
def test_what_is_not_there_afterwards_was_not_stored(answers: list[Answer], message: str) -> None:
    with scripted_server(*answers) as server, pytest.raises(PacsError, match=message):
        store(server.uri, instance())


# Privacy


def test_neither_names_nor_uids_reach_a_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    named = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": CANARY}]}}
    uid = {"0020000D": {"vr": "UI", "Value": [f"1.2.{CANARY}"]}}
    study = Answer(body=json.dumps([named | uid]).encode(), headers={"Warning": f"299 {CANARY}"})
    said: list[str] = []
    answers = {"/studies": study, f"/studies/1.2.{CANARY}/series": Answer(503)}
    with scripted_server(by_path(answers)) as server, pytest.raises(PacsError) as searched:
        list(search(f"{server.uri}?PatientName={CANARY}"))
    with scripted_server(Answer(503)) as server:
        with pytest.raises(PacsError) as retrieved:
            retrieve(f"{server.uri}/studies/{CANARY}/series/{CANARY}/instances/{CANARY}")
        with pytest.raises(PacsError) as stored:
            store(server.uri, instance(PatientName=CANARY, StudyDescription=CANARY))
    said += [str(error.value) for error in (searched, retrieved, stored)]
    said += [caplog.text, *capfd.readouterr()]
    assert not [text for text in said if CANARY in text]
