"""A Ray head of a test's own, and jobs that are submitted to it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import free_ports

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else a head that ran a job takes 30 s to end
}
START_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A head that runs: where jobs are submitted to, and the folder of its logs."""

    address: str
    folder: Path

    def submit(self, *job: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `python JOB…` as a submitted job from the root of the repository, to its end."""
        submit = [BIN / "ray", "job", "submit", "--address", self.address, "--working-dir", "."]
        return run_command(*submit, "--", sys.executable, *job)


@contextmanager
def running_head(env: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Run a head with 2 CPUs on free ports until the block ends.

    Args:
        env: What its environment, and so that of all its workers, has beside this process's.
    """
    gcs, dashboard, client, agent = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        process = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2",
                f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
                f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
                "--object-store-memory=200000000", f"--temp-dir={folder}",
            ],
            env=_without_ray(os.environ) | RAY | dict(env or {}),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        address = f"http://127.0.0.1:{dashboard}"
        try:
            _wait_for(f"{address}/api/version", process)
            yield Head(address=address, folder=Path(folder))
        finally:
            process.terminate()  # only this head; `ray stop` would end all
            process.wait(timeout=60)


def run_command(*command: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the repository, with `extra` in its environment."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT, env=_without_ray(os.environ) | RAY | extra,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("RAY_")}


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the Ray head ended at once"
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return  # it answers, and asks for the token
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise TimeoutError(f"no Ray dashboard at {url}")
