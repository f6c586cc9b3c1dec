"""`--since`: a time, or how long ago; what makes no sense is refused with what does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.config import parse_config
from jobs.settings import ConfigError
from jobs.since import parse_since

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
USUAL = ["--input", "in", "--output", "out", "--checkpoint", "model"]


@pytest.fixture(autouse=True)
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is nine hours ahead."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-09", datetime(2026, 3, 8, 15, tzinfo=UTC)),
        ("2026-03-09T02:00", datetime(2026, 3, 8, 17, tzinfo=UTC)),
        ("2026-03-09 02:00:30", datetime(2026, 3, 8, 17, 0, 30, tzinfo=UTC)),
        ("2026-03-09T02:00+01:00", datetime(2026, 3, 9, 1, tzinfo=UTC)),
        ("2026-03-09T02:00Z", datetime(2026, 3, 9, 2, tzinfo=UTC)),
        ("30m", NOW - timedelta(minutes=30)),
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
    ],
)
def test_a_time_is_local_unless_it_says_otherwise(text: str, expected: datetime) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "", "24", "-3h", "1.5h", "2026-02-30", "9" * 12 + "d", "24h ", "24 h"]
)
def test_nonsense_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--since .*2026-01-31.*24h") as error:
        parse_since(text, NOW)
    assert f"--since {text}:" in str(error.value)


def test_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="--since 2026-03-11: lies in the future"):
        parse_since("2026-03-11", NOW)


def test_a_config_holds_the_time_and_writes_it_down() -> None:
    config = parse_config([*USUAL, "--since", "2020-03-09"])
    assert config.since == datetime(2020, 3, 8, 15, tzinfo=UTC)
    assert config.to_dict()["since"] == "2020-03-09T00:00:00+09:00"
    assert parse_config(USUAL).since is None and parse_config(USUAL).to_dict()["since"] is None


@pytest.mark.parametrize("text", ["2020-03-09", "2020-03-09 00:00:00", "'2020-03-09'"])
def test_dates_that_yaml_understands_mean_the_same(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"since: {text}\n")
    config = parse_config(["--config", str(file), *USUAL])
    assert config.since == datetime(2020, 3, 8, 15, tzinfo=UTC)


def test_a_pacs_has_its_own_way_to_say_it() -> None:
    with pytest.raises(ConfigError, match=r"--since 2020-03-09T00:00: .*\?StudyDate=20200309-"):
        parse_config(["--input", "dicomweb://host/x", *USUAL[2:], "--since", "2020-03-09"])
