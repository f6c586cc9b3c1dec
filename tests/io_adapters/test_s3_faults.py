"""S3 that fails: what is asked again, what a refusal tells, and who asks is never told."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fake_s3 import KEY_ID, SECRET, TOKEN, Bucket, forget_clients, names, one, use_s3
from faulty_proxy import Fault
from ports import free_ports

from io_adapters import object_store, s3_store, storage
from io_adapters.scan import StorageError

BUSY = Fault(status=503, code="SlowDown")
SECRETS = (KEY_ID, SECRET, TOKEN)
PATIENT = "Doe^Jane"


def told(error: BaseException) -> str:
    """Return all that anyone could be shown of an exception, what led to it included."""
    parts, left = [], [error]
    while left:
        seen = left.pop()
        parts += [str(seen), repr(seen), *traceback.format_exception(seen)]
        left += [chained for chained in (seen.__cause__, seen.__context__) if chained is not None]
    return "\n".join(parts)


# Trying again

PASSING = {
    "slow down": BUSY,
    "too many requests": Fault(status=429, code="TooManyRequests"),
    "internal error": Fault(status=500, code="InternalError"),
    "no gateway": Fault(status=502),
    "reset": Fault(reset=True),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_passes_is_waited_for(bucket: Bucket, fault: Fault, method: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "GET": lambda: [*names(bucket.uri), storage.read_bytes(f"{bucket.uri}/a")],
        "PUT": lambda: storage.put_bytes(f"{bucket.uri}/b", b"new"),
        "DELETE": lambda: storage.delete_folder(f"{bucket.uri}/c"),
    }
    bucket.put("a", "c/d")
    bucket.proxy.spoil(fault, method="POST" if method == "DELETE" else method, times=2)
    calls[method]()
    left = {"GET": ["a", "c/d"], "PUT": ["a", "b", "c/d"], "DELETE": ["a"]}
    assert names(bucket.uri) == left[method]


def test_what_is_not_answered_in_time_is_asked_for_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "READ_TIMEOUT_S", 0.3)
    forget_clients(monkeypatch)
    bucket.proxy.spoil(Fault(delay_s=1.0), times=2)
    storage.put_bytes(f"{bucket.uri}/a", b"content")
    assert storage.read_bytes(f"{bucket.uri}/a") == b"content"


def test_a_body_that_is_cut_short_is_asked_for_again(bucket: Bucket) -> None:
    bucket.put("a")
    file = one(bucket.uri)
    bucket.proxy.spoil(Fault(cut=True), method="GET", within="/a", times=2)
    assert storage.read_file(file) == b"content"
    assert bucket.proxy.count("GET") == 4  # the listing, and three attempts


def test_a_listing_that_is_cut_short_is_asked_for_again(bucket: Bucket) -> None:
    bucket.put(*(f"{n}" for n in range(9)))
    bucket.proxy.spoil(Fault(cut=True), method="GET", within="list-type", times=2)
    assert len(names(bucket.uri)) == 9


def test_a_body_that_is_always_cut_short_is_an_error(bucket: Bucket) -> None:
    bucket.put("a")
    bucket.proxy.spoil(Fault(cut=True), method="GET")
    with pytest.raises(StorageError, match="broke off its answers"):
        storage.read_bytes(f"{bucket.uri}/a")
    assert bucket.proxy.count("GET") == 3


def test_a_store_that_stays_busy_is_an_error_in_the_end(bucket: Bucket) -> None:
    bucket.put("a")
    bucket.proxy.spoil(BUSY)
    with pytest.raises(StorageError, match=f"{bucket.uri} was too busy to answer"):
        storage.read_bytes(f"{bucket.uri}/a")
    assert len(bucket.proxy.asked) == 3 * s3_store.ATTEMPTS


def test_a_dead_endpoint_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, f"http://127.0.0.1:{free_ports(1)[0]}")
    started = time.monotonic()
    with pytest.raises(StorageError, match="s3://bucket cannot be reached: check the network"):
        names("s3://bucket/in")
    assert time.monotonic() - started < 10


def test_an_endpoint_that_says_nothing_is_told_soon(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "READ_TIMEOUT_S", 0.1)
    forget_clients(monkeypatch)
    bucket.proxy.spoil(Fault(delay_s=0.5))
    with pytest.raises(StorageError, match="cannot be reached"):
        storage.read_bytes(f"{bucket.uri}/a")
    assert bucket.proxy.count("GET") == s3_store.ATTEMPTS


def test_a_dead_server_is_given_up_within_two_minutes() -> None:
    longest_waits = sum(2**attempt for attempt in range(s3_store.ATTEMPTS - 1))
    assert s3_store.ATTEMPTS * s3_store.READ_TIMEOUT_S + longest_waits < 120


# Refusals

REFUSALS = {
    "ExpiredToken": (400, "have expired: renew them"),
    "InvalidAccessKeyId": (403, "refuses the credentials"),
    "SignatureDoesNotMatch": (403, "refuses the credentials"),
    "AccessDenied": (403, "denies access"),
    "RequestTimeTooSkewed": (403, "clock"),
    "PermanentRedirect": (301, "set AWS_DEFAULT_REGION"),
    "InvalidObjectState": (403, "archived: restore it"),
    "QuotaExceeded": (403, "is full"),
    "UserSuspended": (403, "denies access"),
    "EntityTooLarge": (400, r"failed the request \(EntityTooLarge\)"),
    f"Key {KEY_ID}": (400, r"failed the request \(OSError\)"),
}


def test_a_missing_object_is_told_without_its_name(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match=f"{bucket.uri} has no such object") as caught:
        storage.read_bytes(f"{bucket.uri}/{PATIENT}")
    assert PATIENT not in told(caught.value)


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_refusal_says_what_to_do_and_shows_no_secret(
    bucket: Bucket, caplog: pytest.LogCaptureFixture, code: str, method: str
) -> None:
    status, expected = REFUSALS[code]
    secrets = " ".join(SECRETS)
    bucket.proxy.spoil(Fault(status=status, code=code, message=secrets), method=method)
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageError, match=expected) as caught:
        if method == "GET":
            list(storage.list_files(f"{bucket.uri}/in"))
        storage.put_bytes(f"{bucket.uri}/{PATIENT}", b"1")
    assert bucket.uri in str(caught.value)
    shown = told(caught.value) + caplog.text
    assert not [secret for secret in (*SECRETS, PATIENT) if secret in shown]
    assert bucket.proxy.count(method) <= 2  # botocore looks for a moved bucket by itself


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_a_listing_tells_the_reason_that_a_look_at_one_object_does_not(
    bucket: Bucket, code: str
) -> None:
    status, expected = REFUSALS[code]
    bucket.proxy.spoil(Fault(status=status, code=code))
    with pytest.raises(StorageError, match=expected):
        storage.exists(f"{bucket.uri}/a")


def test_all_that_goes_well_shows_no_secret_either(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        bucket.put("a")
        assert [storage.read_file(file) for file in storage.list_files(bucket.uri)] == [b"content"]
    assert not [secret for secret in SECRETS if secret in caplog.text]


def test_without_credentials_it_is_told_where_they_are_looked_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    forget_clients(monkeypatch)
    with pytest.raises(StorageError, match=f"no credentials for {bucket.uri}: set AWS_PROFILE"):
        names(bucket.uri)


def test_a_deletion_that_is_refused_for_one_object_is_an_error(bucket: Bucket) -> None:
    bucket.put("in/a")
    refusal = "<Error><Key>in/a</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    body = f"<?xml version='1.0'?><DeleteResult>{refusal}</DeleteResult>"
    bucket.proxy.spoil(Fault(status=200, body=body.encode()), method="POST")
    with pytest.raises(StorageError, match="denies access"):
        storage.delete_folder(f"{bucket.uri}/in")


# Settings


def with_credentials_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the credentials from the environment into the profile "archive" of a file."""
    file.write_text(
        f"[archive]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
        f"aws_session_token = {TOKEN}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


def use_fsspec_settings(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Set what fsspec takes from the environment when it is imported."""
    conf: dict[str, dict[str, object]] = {}
    fsspec.config.set_conf_env(conf, {f"FSSPEC_S3_{k.upper()}": v for k, v in settings.items()})
    monkeypatch.setattr(fsspec.config, "conf", conf)
    forget_clients(monkeypatch)


def test_a_profile_may_have_the_credentials(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_credentials_in(tmp_path / "credentials", monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "archive")
    forget_clients(monkeypatch)
    bucket.put("a")
    assert names(bucket.uri) == ["a"]


def test_a_profile_that_is_not_there_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget_clients(monkeypatch)
    with pytest.raises(StorageError, match=r"configuration for .* cannot be used: .*AWS_PROFILE"):
        names(bucket.uri)


def test_fsspec_settings_may_name_the_profile_and_the_endpoint(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_credentials_in(tmp_path / "credentials", monkeypatch)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    use_fsspec_settings(monkeypatch, profile="archive", endpoint_url=bucket.proxy.url)
    bucket.put("a")
    assert names(bucket.uri) == ["a"]


def test_fsspec_settings_may_ask_as_nobody(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    use_fsspec_settings(monkeypatch, anon="true")
    assert names(bucket.uri) == []


def test_fsspec_settings_may_change_the_timeouts(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fsspec_settings(monkeypatch, config_kwargs='{"retries": {"total_max_attempts": 1}}')
    bucket.proxy.spoil(BUSY)
    with pytest.raises(StorageError):
        names(bucket.uri)
    assert len(bucket.proxy.asked) == 3


@pytest.mark.parametrize("endpoint", ["not a url", "ftp://x"])
def test_an_endpoint_that_is_no_url_is_told(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    use_s3(monkeypatch, endpoint)
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        names("s3://bucket")


def test_all_threads_share_one_client(bucket: Bucket) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = set(pool.map(lambda _: object_store.open_store(bucket.uri), range(8)))
    assert len(stores) == 1
    assert sum(thread.name == "fsspecIO" for thread in threading.enumerate()) == 1
