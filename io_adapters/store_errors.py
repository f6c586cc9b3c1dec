"""What goes wrong in an object store, in our words.

The messages of s3fs, botocore and aiohttp quote what a server said and what was asked of it: key
ids, signatures, names of objects. None of them is passed on, in a message or in an exception's
chain. Exceptions are known by the names of their classes, so that a package is imported only by
those who use its store.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from io_adapters.scan import ScanError, StorageError

WAITS_S = (1.0, 4.0)
"""Before each new attempt at what botocore gave up, or does not try again by itself."""

Result = TypeVar("Result")


class RefusedError(StorageError):
    """The store does not allow it, and may not say why: the answer to a HEAD is a number."""


class PartRefusedError(Exception):
    """An answer that is none of an error told of one; for `ask`, which makes it another's.

    Args:
        told: Code and more, as S3 tells it.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__()
        self.response = {"Error": told}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trouble:
    message: str
    """{store} stands for scheme://bucket."""
    passing: bool = False
    """Whether another attempt may go well."""
    error: Callable[[str], Exception] = StorageError


_NOT_FOUND = _Trouble(message="{store} has no such object", error=FileNotFoundError)
_MISSING = _Trouble(
    message="no credentials for {store}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or for a public bucket FSSPEC_S3_ANON=true, on every machine of the run"
)
_REFUSED = _Trouble(
    message="{store} refuses the credentials: check them, and that AWS_ENDPOINT_URL is where "
    "they belong"
)
_EXPIRED = _Trouble(message="the credentials for {store} have expired: renew them and run again")
_DENIED = _Trouble(
    message="{store} denies access: ask for the right to list it, and to read or write its objects",
    error=RefusedError,
)
_UNTOLD = _Trouble(
    message="{store} refuses the request: check the credentials and what they allow",
    error=RefusedError,
)
_FULL = _Trouble(message="{store} is full: its quota is used up")
_NO_BUCKET = _Trouble(
    message="there is no bucket {store}: check its name and AWS_ENDPOINT_URL, or create it"
)
_ELSEWHERE = _Trouble(message="{store} is in another region: set AWS_DEFAULT_REGION to it")
_UNREACHABLE = _Trouble(
    message="{store} cannot be reached: check the network and AWS_ENDPOINT_URL, and run again"
)
_UNTRUSTED = _Trouble(
    message="{store} shows a certificate that is not trusted here: set AWS_CA_BUNDLE to the file "
    "of the authority that signed it"
)
_MISCONFIGURED = _Trouble(
    message="the configuration for {store} cannot be used: check AWS_ENDPOINT_URL, AWS_PROFILE "
    "and its files"
)
_BUSY = _Trouble(message="{store} was too busy to answer: run again, or later", passing=True)
_BROKEN_OFF = _Trouble(message="{store} broke off its answers: run again", passing=True)
_ARCHIVED = _Trouble(message="an object of {store} is archived: restore it, and run again")
_WRONG_TIME = _Trouble(
    message="{store} refuses requests of this machine, whose clock is wrong: set it"
)

_BY_CODE = {
    **dict.fromkeys(("NoSuchKey", "NotFound"), _NOT_FOUND),
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName"), _NO_BUCKET),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"),
        _REFUSED,
    ),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), _EXPIRED),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem"), _DENIED),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired"), _WRONG_TIME),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        _ELSEWHERE,
    ),
    "InvalidObjectState": _ARCHIVED,
    "QuotaExceeded": _FULL,
    "400": _UNTOLD,
    **dict.fromkeys(("SlowDown", "RequestTimeout", "BandwidthLimitExceeded"), _BUSY),
}
"""By the code of an S3 answer; botocore takes the status for it where there is none."""
_BY_STATUS = {
    301: _ELSEWHERE,
    403: _DENIED,
    404: _NOT_FOUND,
    429: _BUSY,
    **dict.fromkeys((500, 502, 503, 504), _BUSY),
}
"""By the HTTP status of an answer: that to a HEAD has no code."""
_BY_CLASS = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError"), _MISSING),
    **dict.fromkeys(("NoAuthTokenError", "CredentialRetrievalError"), _MISSING),
    **dict.fromkeys(("SSOError", "TokenRetrievalError"), _EXPIRED),
    **dict.fromkeys(("ProfileNotFound", "ConfigNotFound", "ConfigParseError"), _MISCONFIGURED),
    **dict.fromkeys(("ValueError", "EndpointProviderError"), _MISCONFIGURED),  # no URL
    "ParamValidationError": _NO_BUCKET,  # botocore's, of a name that no bucket can have
    **dict.fromkeys(("ResponseStreamingError", "AioReadTimeoutError"), _BROKEN_OFF),
    **dict.fromkeys(("ClientPayloadError", "IncompleteReadError"), _BROKEN_OFF),
    **dict.fromkeys(("FlexibleChecksumError", "ResponseParserError"), _BROKEN_OFF),
    "SSLError": _UNTRUSTED,
    **dict.fromkeys(("HTTPClientError", "ConnectionError", "TimeoutError"), _UNREACHABLE),
    "FileNotFoundError": _NOT_FOUND,
    "PermissionError": _DENIED,
}
"""By the name of an exception's class or, failing that, of its nearest known ancestor."""


def ask(
    store: str, request: Callable[[], Result], *, waits: tuple[float, ...] | None = None
) -> Result:
    """Return what a request gives, asking again where that may help.

    Args:
        store: scheme://bucket, for messages.
        request: Makes the requests; whatever it changes, it may change twice.
        waits: Seconds before each new attempt; by default `WAITS_S`.

    Raises:
        ScanError: `request` raised it.
        StorageError: the store refuses or fails it.
        FileNotFoundError: an object is not there.
    """
    for wait in (*(WAITS_S if waits is None else waits), None):
        try:
            return request()
        except (ScanError, MemoryError):
            raise
        except Exception as error:
            trouble = _trouble_of(error)
        if wait is None or not trouble.passing:
            break
        time.sleep(wait * random.uniform(0.5, 1.0))  # not all workers at the same moment
    # Out of the except block: what the store said is not even this one's __context__.
    raise trouble.error(trouble.message.format(store=store))


def no_bucket(store: str) -> StorageError:
    """Return the error of a bucket that is not there."""
    return StorageError(_NO_BUCKET.message.format(store=store))


def store_of(uri: str) -> str:
    """Return scheme://bucket, for messages: the rest may hold names of patients."""
    scheme, _, path = uri.partition("://")
    return f"{scheme}://{path.partition('/')[0]}"


def code_of(error: BaseException) -> str | None:
    """Return the code of the S3 answer that an exception stands for, None if there was none."""
    answer = _answer_of(error)
    return str(answer.get("Error", {}).get("Code", "")) if answer else None


def _trouble_of(error: Exception) -> _Trouble:
    code = code_of(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if (status := _status_of(error)) in _BY_STATUS:
        return _BY_STATUS[status]
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _BY_CLASS:
            return _BY_CLASS[ancestor.__name__]
    # A server chooses its codes: one that is no plain word stays untold.
    told = code if code and re.fullmatch(r"[A-Za-z]{1,40}", code) else type(error).__name__
    return _Trouble(message="{store} failed the request (" + told + ")")


def _answer_of(error: BaseException | None) -> Mapping[str, Any] | None:
    """Return botocore's parsed answer: s3fs hangs it below an exception of its own."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, Mapping):
            return answer
        error = error.__cause__
    return None


def _status_of(error: BaseException) -> int:
    answer = _answer_of(error) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
