"""Errors of stores in our words: which are waited for, and what is told of them."""

from __future__ import annotations

import builtins
import inspect
from types import ModuleType

import aiobotocore.response
import aiohttp
import botocore.exceptions
import botocore.parsers
import pytest

from io_adapters import store_errors
from io_adapters.scan import StorageError, UnsupportedError
from io_adapters.store_errors import ask

HOMES: tuple[ModuleType, ...] = (
    *(botocore.exceptions, botocore.parsers, aiobotocore.response, aiohttp, builtins),
)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the waits that were asked for; nobody waits."""
    asked: list[float] = []
    monkeypatch.setattr(store_errors.time, "sleep", asked.append)
    return asked


def classes(home: ModuleType) -> set[str]:
    return {name for name, value in vars(home).items() if inspect.isclass(value)}


def test_every_class_that_is_known_by_name_is_somewhere() -> None:
    known = set().union(*map(classes, HOMES))
    assert set(store_errors._BY_CLASS) - known == set()


def test_what_may_pass_is_asked_again_after_growing_waits(waits: list[float]) -> None:
    answers = iter([aiohttp.ClientPayloadError("cut"), aiohttp.ClientPayloadError("cut"), b"1"])

    def request() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert ask("s3://b", request) == b"1"
    for wait, longest in zip(waits, store_errors.WAITS_S, strict=True):
        assert longest / 2 <= wait <= longest


def failing(error: Exception) -> object:
    raise error


def test_what_will_not_pass_is_not_asked_again(waits: list[float]) -> None:
    with pytest.raises(StorageError, match="no credentials for s3://b"):
        ask("s3://b", lambda: failing(botocore.exceptions.NoCredentialsError()))
    assert waits == []


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(UnsupportedError, match="ours"):
        ask("s3://b", lambda: failing(UnsupportedError("ours")))


def test_an_unknown_error_is_told_by_its_class_alone() -> None:
    with pytest.raises(StorageError, match=r"^s3://b failed the request \(KeyError\)$") as caught:
        ask("s3://b", lambda: failing(KeyError("AKIDRECOGNISED")))
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_certificate_that_is_not_trusted_is_told_apart_from_a_dead_network() -> None:
    error = botocore.exceptions.SSLError(endpoint_url="https://s3", error="certificate")
    with pytest.raises(StorageError, match="AWS_CA_BUNDLE"):
        ask("s3://b", lambda: failing(error))


def test_a_login_that_ran_out_is_told() -> None:
    with pytest.raises(StorageError, match="expired"):
        ask("s3://b", lambda: failing(botocore.exceptions.UnauthorizedSSOTokenError()))
