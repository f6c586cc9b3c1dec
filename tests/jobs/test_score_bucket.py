"""From a bucket to a bucket: the submitted job on a real S3 server, and the report out of it.

Credentials reach the workers through the environment that the Ray head was started in; the
command that submits the job has none.
"""

from __future__ import annotations

import io
import json
import mimetypes
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urljoin, urlsplit

import pyarrow.parquet as pq
import pytest
import requests
from ceph import Rgw, needs_rgw
from ray_head import Head, running_head

from jobs.score_dataset import SOME_FAILED, main

pytestmark = needs_rgw

BROKEN = {"text.png", "half.dcm"}
TYPES = {".gz": "application/gzip", ".tiff": "image/tiff", ".png": "image/png"}
"""What a browser is to be told; where nothing is said here, what Python knows of the suffix."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a run left: its objects by name below OUT, and the root of its input."""

    files: dict[str, bytes]
    root: str

    @property
    def scans(self) -> dict[str, dict[str, Any]]:
        """Rows by where the scan is below the root: names of images hold a hash of their URI."""
        rows = pq.read_table(io.BytesIO(self.files["scores.parquet"])).to_pylist()
        by_place = {row["uri"].removeprefix(self.root).strip("/"): row for row in rows}
        assert len(by_place) == len(rows)
        return by_place

    @property
    def failed(self) -> set[str]:
        """The names of files without a result."""
        lines = self.files["failures.csv"].decode().splitlines()[1:]
        return {Path(line.split(",")[0]).name for line in lines}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that is submitted again and again: an archive in one bucket, results in another."""

    rgw: Rgw
    head: Head
    checkpoint: Path
    source: str
    results: str

    def run(self) -> CompletedProcess[str]:
        """Submit it and wait for its end: some of the inputs are broken."""
        ended = self.head.submit(
            *("jobs/score_dataset.py", "--input", f"s3://{self.source}/archive"),
            *("--output", f"s3://{self.results}/out", "--checkpoint", self.checkpoint),
        )
        assert f"exit code {SOME_FAILED}" in ended.stdout + ended.stderr, ended.stdout[-3000:]
        return ended

    def stored(self) -> Results:
        """Read the results past the code under test."""
        files = self.rgw.files(self.results, "out/")
        below = {key.removeprefix("out/"): content for key, content in files.items()}
        return Results(files=below, root=f"s3://{self.source}/archive")

    def versions(self) -> dict[str, Any]:
        """Return when each object of a scan was written, by its name below OUT."""
        listing = self.rgw.listing(self.results, "out/scans/")
        return {key.removeprefix("out/"): item["LastModified"] for key, item in listing.items()}


@pytest.fixture(scope="module")
def job(rgw: Rgw, archive: Path, tiny_checkpoint: Path) -> Iterator[Job]:
    source, results = f"in-{uuid.uuid4().hex}", f"out-{uuid.uuid4().hex}"
    rgw.make_bucket(source)
    rgw.make_bucket(results, public=True)
    files = (path for path in archive.rglob("*") if path.is_file())
    rgw.put(source, ((f"archive/{p.relative_to(archive)}", p.read_bytes()) for p in files))
    with running_head(rgw.env) as head:
        yield Job(rgw=rgw, head=head, checkpoint=tiny_checkpoint, source=source, results=results)


@pytest.fixture(scope="module")
def first(job: Job) -> CompletedProcess[str]:
    """The first run of the job."""
    return job.run()


@pytest.fixture(scope="module")
def scored(job: Job, first: CompletedProcess[str]) -> Results:
    """What it left."""
    return job.stored()


@pytest.fixture
def copy(job: Job, scored: Results) -> Job:
    """The same job on a copy of those results, which a test may spoil."""
    bucket = f"copy-{uuid.uuid4().hex}"
    job.rgw.make_bucket(bucket)
    job.rgw.put(bucket, ((f"out/{name}", content) for name, content in scored.files.items()))
    return Job(
        **{"rgw": job.rgw, "head": job.head, "checkpoint": job.checkpoint, "source": job.source},
        results=bucket,
    )


@pytest.fixture(scope="module")
def local(
    small_ray: None,
    archive: Path,
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Results:
    """The results of the same archive, from this machine's disk to this machine's disk."""
    out = tmp_path_factory.mktemp("local")
    arguments = ["--input", archive, "--output", out, "--checkpoint", tiny_checkpoint]
    assert main([str(argument) for argument in arguments]) == SOME_FAILED
    paths = (path for path in out.rglob("*") if path.is_file())
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
    return Results(files=files, root=str(archive))


def test_scores_are_those_of_the_local_run(scored: Results, local: Results) -> None:
    assert len(scored.scans) == 5
    assert scored.failed == local.failed == BROKEN
    for measured in ("score", "slice_scores", "top_slice", "shape", "flags"):
        ours = {place: row[measured] for place, row in scored.scans.items()}
        assert ours == {place: row[measured] for place, row in local.scans.items()}


def test_maps_are_those_of_the_local_run_bit_by_bit(scored: Results, local: Results) -> None:
    different = [
        place
        for place, row in scored.scans.items()
        if scored.files[row["map"]] != local.files[local.scans[place]["map"]]
    ]
    assert not different


def test_a_run_that_was_cut_off_goes_on(copy: Job, scored: Results, local: Results) -> None:
    place = "series"
    row = scored.scans[place]
    folder = row["map"].rpartition("/")[0]
    tables = [name for name in scored.files if not name.startswith("scans/")]
    lost = [row["map"], f"{folder}/scan.json", *tables]
    copy.rgw.delete(copy.results, (f"out/{name}" for name in lost))
    begun = json.loads(scored.files["run.json"])
    for name in ("finished", "counts"):
        del begun[name]
    copy.rgw.put(copy.results, [("out/run.json", json.dumps(begun).encode())])
    before = copy.versions()

    copy.run()

    after = copy.versions()
    assert after.keys() == {name for name in scored.files if name.startswith("scans/")}
    rest = {name: time for name, time in before.items() if not name.startswith(folder)}
    assert rest == {name: time for name, time in after.items() if not name.startswith(folder)}
    stored = copy.stored()
    assert stored.scans.keys() == scored.scans.keys()
    assert stored.files[row["map"]] == local.files[local.scans[place]["map"]]


class Links(HTMLParser):
    """What a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name in {"href", "src"} and value}


def test_report_opens_from_the_bucket(job: Job, scored: Results) -> None:
    """Every page, and everything that it shows or links to, as any browser asks for it."""
    pages = [name for name in scored.files if name.endswith(".html")]
    assert "report/index.html" in pages
    linked = set()
    for name in pages:
        url = f"{job.rgw.endpoint}/{job.results}/out/{name}"
        page = fetch(url, "text/html")
        relative = {link for link in Links(page.text).found if not urlsplit(link).scheme}
        linked |= {urljoin(url, link).partition("#")[0] for link in relative} - {url}
    assert len(linked) >= 3 * len(scored.scans)  # overlay, map and record of each
    for url in linked:
        suffix = Path(urlsplit(url).path).suffix
        fetch(url, TYPES.get(suffix) or str(mimetypes.types_map[suffix]))


def fetch(url: str, content_type: str) -> requests.Response:
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 200, url
    assert answer.headers["Content-Type"].partition(";")[0] == content_type, url
    assert "Content-Encoding" not in answer.headers, "a map that unpacks itself has a wrong name"
    return answer


def test_credentials_appear_nowhere(
    job: Job, first: CompletedProcess[str], scored: Results
) -> None:
    printed = {"stdout": first.stdout.encode(), "stderr": first.stderr.encode()}
    logs = {str(p): p.read_bytes() for p in job.head.folder.rglob("*") if p.is_file()}
    assert any("job-driver" in name for name in logs)
    tables = {
        f"{name} rows": str(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
        for name, content in scored.files.items()
        if name.endswith(".parquet")
    }
    secrets = {"id": job.rgw.access_key.encode(), "secret": job.rgw.secret_key.encode()}
    everything = printed | logs | scored.files | tables
    assert not [
        f"{kind} in {name}"
        for name, content in everything.items()
        for kind, secret in secrets.items()
        if secret in content
    ]


def test_a_submitted_job_refuses_a_path_that_would_be_lost(job: Job) -> None:
    relative = ["jobs/score_dataset.py", "--input", "in", "--output", "out"]
    refused = job.head.submit(*relative, "--checkpoint", job.checkpoint)
    assert "give `ray job submit` an absolute path" in refused.stdout + refused.stderr
