"""Progress lines."""

from __future__ import annotations

import pytest

from jobs import progress as module
from jobs.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets; it starts at 100 s."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_are_measured_from_the_first_scan(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(4)
    clock[0] = 160.0  # a minute until the workers are up
    progress.add(slices=50, failed=False)
    assert progress.slices_per_second is None
    clock[0] = 170.0
    progress.add(slices=20, failed=True)
    assert progress.slices_per_second == 2.0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "scored 1/4 scans · 0 failed",
        "scored 2/4 scans · 2.0 slices/s · 0:20 left · 1 failed",
    ]


def test_lines_come_every_few_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(100)
    for _ in range(100):
        clock[0] += 0.1
        progress.add(slices=1, failed=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("scored 100/100 scans")
