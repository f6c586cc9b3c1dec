"""`ray job submit` on a head of its own gives the scores of the plain command."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Start a Ray head on free ports; yields the address that jobs are submitted to."""
    gcs, dashboard, client, agent = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        process = subprocess.Popen(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2",
                f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
                f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
                "--object-store-memory=200000000", f"--temp-dir={folder}",
            ],
            env=os.environ | RAY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_for(f"{address}/api/version", process)
            yield address
        finally:
            process.terminate()  # only this head; `ray stop` would end all
            process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
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


def scores(output: Path) -> dict[str, float]:
    rows = pq.read_table(output / "scores.parquet", columns=["scan_id", "score"]).to_pylist()
    return {row["scan_id"]: row["score"] for row in rows}


def run(command: list[str | Path], **extra: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT, env=kept | RAY | extra, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_submitted_job_scores_as_the_plain_command(
    head: str, archive: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = ["jobs/score_dataset.py", "--input", archive, "--checkpoint", tiny_checkpoint, "--output"]
    submit = [BIN / "ray", "job", "submit", "--address", head, "--working-dir", ".", "--"]
    submitted = run([*submit, sys.executable, *job, tmp_path / "submitted"])
    printed = submitted.stdout + submitted.stderr
    assert "scored 6/6 scans" in printed
    assert "exit code 3" in printed, "some inputs are broken, and the job's code says so"

    plain = run([sys.executable, *job, tmp_path / "plain"], RAY_ADDRESS="local")
    assert plain.returncode == 3, plain.stderr
    assert scores(tmp_path / "submitted") == pytest.approx(scores(tmp_path / "plain"), abs=1e-5)


def test_submitted_job_refuses_a_path_that_would_be_lost(head: str, tiny_checkpoint: Path) -> None:
    job = ["jobs/score_dataset.py", "--input", "in", "--output", "out"]
    submit = [BIN / "ray", "job", "submit", "--address", head, "--working-dir", ".", "--"]
    submitted = run([*submit, sys.executable, *job, "--checkpoint", tiny_checkpoint])
    assert "give `ray job submit` an absolute path" in submitted.stdout + submitted.stderr
