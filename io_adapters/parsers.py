"""Third-party parsers at arm's length: what they log, warn or raise quotes the file they parse.

A name in a broken attribute comes back in a parser's message, and a message ends up in logs and
reports. So parsers are silenced, and their exceptions are replaced by ours.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from io_adapters.scan import ScanError, UnreadableError, UnsupportedError

_PARSERS = (
    *("pydicom", "highdicom", "pylibjpeg", "nibabel", "PIL", "tifffile", "imagecodecs"),
    *("dicomweb_client", "urllib3"),
)
_LOGGERS = [logging.getLogger(name) for name in _PARSERS]
_FILTERS = [("ignore", None, Warning, re.compile(rf"{name}(\.|$)"), 0) for name in _PARSERS]


def silence() -> None:
    """Turn off the logs and warnings of the parsers; cheap enough to do before every file.

    Once at import is not enough: warning filters are reset by whoever runs us, and some parsers
    set the level of their logger when they are imported.
    """
    for logger in _LOGGERS:
        if logger.level <= logging.CRITICAL:
            logger.setLevel(logging.CRITICAL + 1)
    if warnings.filters[: len(_FILTERS)] != _FILTERS:
        for *_, module, _ in reversed(_FILTERS):
            warnings.filterwarnings("ignore", module=module.pattern)


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Run a parser so that only a `ScanError` in our own words leaves the block.

    Args:
        what: What is being parsed, the subject of the message ("the DICOM header").

    Raises:
        ScanError: the parser raised; the message holds the class of its exception, no more.
    """
    silence()
    try:
        yield
    except ScanError:
        raise
    except MemoryError:
        raise UnsupportedError(f"{what} needs more memory than there is") from None
    except Exception as error:
        raise UnreadableError(f"{what} cannot be parsed ({type(error).__name__})") from None
