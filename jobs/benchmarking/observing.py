"""A scoring run watched from outside, through Linux's /proc: nothing in it knows that it is.

Ray gives its workers titles that say what they do: one with a detector waits for blocks of scans in
`ray::…MapWorker…`, and works on one in `ray::…MapWorker….submit`.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHORT_S, LONG_S = 0.05, 1.0
"""Between looks, before the first worker works and after: a look takes a few milliseconds."""
WORKER = b"ray::"
AT_WORK = re.compile(rb"ray::.*MapWorker.*\.submit")
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What was seen of a command; moments are of `time.time()`."""

    exit_code: int
    began: float
    first_work: float | None
    """When a worker, its model loaded, took the first block; None: never."""
    ended: float
    driver_bytes: int
    """Peak of the command's own process, resident, shared memory included."""
    worker_bytes: int
    """Of the largest of Ray's workers; 0: there was none."""


def observe(command: Sequence[str], environment: Mapping[str, str]) -> Observation:
    """Run a command to its end; what it prints is shown."""
    began, first_work = time.time(), None
    peaks: dict[int, int] = {}
    with subprocess.Popen(command, env=environment) as process:
        exit_code = None
        while exit_code is None:
            for pid in (process.pid, *_workers_below(process.pid)):
                peaks[pid] = max(peaks.get(pid, 0), _peak_bytes(pid))
                if first_work is None and AT_WORK.match(_title(pid)):
                    first_work = time.time()
            try:
                exit_code = process.wait(SHORT_S if first_work is None else LONG_S)
            except subprocess.TimeoutExpired:
                continue
    driver = peaks.pop(process.pid)
    return Observation(
        exit_code=exit_code,
        began=began,
        first_work=first_work,
        ended=time.time(),
        driver_bytes=driver,
        worker_bytes=max(peaks.values(), default=0),
    )


def _workers_below(root: int) -> list[int]:
    """Return the Ray workers among the children of a process, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            children.setdefault(_parent(int(folder.name)), []).append(int(folder.name))
    found, known = [], [root]
    while known:
        below = children.get(known.pop(), [])
        known += below
        found += [pid for pid in below if _title(pid).startswith(WORKER)]
    return found


def _parent(pid: int) -> int:
    # "pid (any name) state parent …"
    after_name = _read(pid, "stat").rpartition(b")")[2].split()
    return int(after_name[1]) if after_name else 0


def _title(pid: int) -> bytes:
    return _read(pid, "cmdline")


def _peak_bytes(pid: int) -> int:
    found = re.search(rb"VmHWM:\s+(\d+) kB", _read(pid, "status"))
    return int(found[1]) * 1024 if found else 0


def _read(pid: int, name: str) -> bytes:
    """Return what the kernel says of a process; nothing once it has ended."""
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
