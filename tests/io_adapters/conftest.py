"""A fake S3 for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_s3 import Bucket, empty_bucket, fake_s3, use_s3
from faulty_proxy import Proxy

from io_adapters import object_store


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Proxy]:
    with fake_s3() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def s3_clients() -> dict[tuple[object, ...], object]:
    """Where the clients of the server are kept: making one takes longer than most tests."""
    return {}


@pytest.fixture
def bucket(
    monkeypatch: pytest.MonkeyPatch,
    s3_server: Proxy,
    s3_clients: dict[tuple[object, ...], object],
) -> Bucket:
    """An empty bucket, and all of S3 that this process sees."""
    use_s3(monkeypatch, s3_server.url)
    monkeypatch.setattr(object_store, "_stores", s3_clients)
    return empty_bucket(s3_server)
