"""`ray job submit` on a head of its own gives the scores of the plain command.

The same from a bucket to a bucket, which takes an S3 server, is quick enough for every day:
test_score_bucket.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray_head import Head, run_command, running_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head() as head:
        yield head


def scores(output: Path) -> dict[str, float]:
    rows = pq.read_table(output / "scores.parquet", columns=["scan_id", "score"]).to_pylist()
    return {row["scan_id"]: row["score"] for row in rows}


@pytest.mark.slow
def test_submitted_job_scores_as_the_plain_command(
    head: Head, archive: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    job = ["jobs/score_dataset.py", "--input", archive, "--checkpoint", tiny_checkpoint, "--output"]
    submitted = head.submit(*job, tmp_path / "submitted")
    printed = submitted.stdout + submitted.stderr
    assert "scored 6/6 scans" in printed
    assert "exit code 3" in printed, "some inputs are broken, and the job's code says so"

    plain = run_command(sys.executable, *job, tmp_path / "plain", RAY_ADDRESS="local")
    assert plain.returncode == 3, plain.stderr
    assert scores(tmp_path / "submitted") == pytest.approx(scores(tmp_path / "plain"), abs=1e-5)
