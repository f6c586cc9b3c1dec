"""When `--since` begins: a date, a date and time, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from jobs.settings import ConfigError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(rf"([0-9]+)([{''.join(_UNITS)}])")


def parse_since(text: str, now: datetime) -> datetime:
    """Return the time that a text stands for; one without a time zone is local.

    Args:
        text: "2026-01-31", "2026-01-31T02:00", "2026-01-31T02:00+01:00", "30m", "24h", "7d".
        now: With a time zone.

    Raises:
        ConfigError: it is none of these, or lies in the future.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            since = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            since = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--since {text}: give a date (2026-01-31), a date and time (2026-01-31T02:00, with "
            "+01:00 where it is not the local one), or how long ago (30m, 24h, 7d)"
        ) from None
    if since > now:
        raise ConfigError(f"--since {text}: lies in the future, where nothing was modified yet")
    return since
