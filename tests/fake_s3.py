"""A fake S3 server in this process, behind a proxy that can spoil its answers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import fsspec
import pytest
import requests
from faulty_proxy import Proxy, faulty_proxy
from moto.server import ThreadedMotoServer

from io_adapters import object_store, storage, store_errors
from io_adapters.scan import FileRef

KEY_ID, SECRET, TOKEN = "AKIDRECOGNISED", "secret-recognised", "token-recognised"
"""None of them may be seen anywhere."""
_SIGNED = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request"
"""The server looks whether somebody asks, not whether it is true."""
_OTHER_SETTINGS = ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_REGION")


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket of a fake S3, and the proxy on the way to it."""

    uri: str
    proxy: Proxy

    def put(self, *names: str, content: bytes = b"content") -> None:
        for name in names:
            storage.put_bytes(storage.join(self.uri, name), content)
        self.proxy.forget()

    @property
    def asked(self) -> list[str]:
        """Method and path of the requests for this bucket, not of an earlier one's stragglers."""
        return [request for request in self.proxy.asked if f" /{self.uri[5:]}" in request]

    def ask(self, method: str, name: str = "") -> Mapping[str, str]:
        """Return the headers of the server's answer to a request that no store of ours made."""
        url = f"{self.proxy.upstream}/{self.uri.removeprefix('s3://')}/{name}"
        answer = requests.request(method, url, headers={"Authorization": _SIGNED}, timeout=30)
        answer.raise_for_status()
        return answer.headers


@contextmanager
def fake_s3() -> Iterator[Proxy]:
    """Run the server and the proxy until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server's log of requests
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with faulty_proxy(f"http://{host}:{port}") as proxy:
            yield proxy
    finally:
        server.stop()


def empty_bucket(proxy: Proxy) -> Bucket:
    """Make a bucket; the proxy starts afresh."""
    bucket = Bucket(f"s3://b{uuid.uuid4().hex}", proxy)
    bucket.ask("PUT")
    proxy.forget()
    return bucket


def use_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let all that this process stores in S3 go to an endpoint, without waits between attempts."""
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    for name in _OTHER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fsspec.config, "conf", {})
    monkeypatch.setattr(store_errors, "WAITS_S", (0.0, 0.0))
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)
    forget_clients(monkeypatch)


def forget_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next request take the settings that are there then."""
    monkeypatch.setattr(object_store, "_stores", {})


def names(uri: str) -> list[str]:
    """Return what is listed, relative to the URI."""
    return [file.uri.removeprefix(uri).lstrip("/") for file in storage.list_files(uri)]


def one(uri: str) -> FileRef:
    """Return the only file that is listed."""
    (file,) = storage.list_files(uri)
    return file
