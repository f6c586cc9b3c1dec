"""A command watched from outside: when it works, and how much memory its processes take."""

from __future__ import annotations

import os
import sys
import time

import pytest

from jobs.benchmarking import observing
from jobs.benchmarking.observing import Observation, observe


def run(script: str) -> Observation:
    return observe(["bash", "-c", script], os.environ)


def test_tells_how_and_when_a_command_ended() -> None:
    before = time.time()
    seen = run("sleep 0.2; exit 3")
    assert seen.exit_code == 3
    assert before <= seen.began <= seen.ended - 0.2
    assert seen.first_work is None
    assert seen.worker_bytes == 0


def test_a_worker_with_a_detector_works_while_it_has_a_block() -> None:
    begin = "(exec -a 'ray::MapWorker(Read)' sleep 0.5)"
    work = "(exec -a 'ray::MapWorker(Read).submit' sleep 0.5)"
    assert run(f"{begin}; true").first_work is None
    seen = run(f"{begin}; {work}; true")
    assert seen.first_work is not None
    assert seen.began + 0.5 < seen.first_work < seen.ended - 0.2


def test_a_worker_of_a_worker_is_seen_and_others_are_not() -> None:
    assert run("(exec -a 'ray::IDLE' sleep 0.2); true").worker_bytes > 0
    assert run("bash -c \"(exec -a 'ray::IDLE' sleep 0.2); true\"; true").worker_bytes > 0
    assert run("(exec -a 'raylet' sleep 0.2); true").worker_bytes == 0


def test_memory_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "SHORT_S", 0.02)
    code = "import time; x = b'x' * 100_000_000; x = None; time.sleep(0.3)"
    seen = observe([sys.executable, "-c", code], os.environ)
    assert 100e6 < seen.driver_bytes < 300e6
