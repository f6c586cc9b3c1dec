"""A job whose bucket refuses it ends in one line, which shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_s3 import KEY_ID, SECRET, TOKEN, Bucket, empty_bucket, fake_s3, use_s3
from faulty_proxy import Fault
from PIL import Image

from jobs.score_dataset import RUN_FAILED, WRONG_USAGE, main

EXPIRED = Fault(status=400, code="ExpiredToken", message=f"{KEY_ID} {SECRET} {TOKEN}")


@pytest.fixture(scope="module")
def server_bucket() -> Iterator[Bucket]:
    with fake_s3() as proxy:
        yield empty_bucket(proxy)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, server_bucket: Bucket) -> Bucket:
    use_s3(monkeypatch, server_bucket.proxy.url)
    server_bucket.proxy.forget()
    return server_bucket


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """A folder with one picture."""
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in" / "a.png")
    return str(tmp_path / "in")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code of a job and its last words."""
    code = main(arguments)
    shown = capsys.readouterr()
    assert not [secret for secret in (KEY_ID, SECRET, TOKEN) if secret in shown.out + shown.err]
    (line,) = shown.err.splitlines()
    return code, line


def test_a_listing_that_is_refused_ends_the_job_in_one_line(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    bucket.proxy.spoil(EXPIRED)
    code, line = run(
        capsys,
        *("--input", f"{bucket.uri}/in", "--output", str(tmp_path / "out")),
        *("--checkpoint", str(tiny_checkpoint)),
    )
    assert code == RUN_FAILED
    expired = f"error: the credentials for {bucket.uri} have expired: renew them and run again"
    assert line == expired


def test_results_that_cannot_be_written_end_the_job_in_one_line(
    bucket: Bucket, archive: str, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path
) -> None:
    bucket.proxy.spoil(EXPIRED, method="PUT")
    code, line = run(
        capsys,
        *("--input", archive, "--output", f"{bucket.uri}/out"),
        *("--checkpoint", str(tiny_checkpoint)),
    )
    assert code == RUN_FAILED
    assert line.startswith(f"error: the credentials for {bucket.uri} have expired")


def test_a_prefix_that_is_not_there_is_wrong_usage(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code, line = run(
        capsys,
        *("--input", f"{bucket.uri}/nothing", "--output", str(tmp_path / "out")),
        *("--checkpoint", str(tiny_checkpoint)),
    )
    assert code == WRONG_USAGE
    assert line == f"error: no object or prefix at {bucket.uri}/nothing"
