"""Many small images, from a bucket to a bucket: memory and time per image do not grow.

python -m pytest -m slow tests/jobs/test_scale.py                              # 20,000 images
ZSAD_SCALE_IMAGES=500 python -m pytest -m slow tests/jobs/test_scale.py        # a try
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ceph import Rgw, needs_rgw
from PIL import Image
from ray_head import RAY, ROOT

from jobs.score_dataset import SCORED

pytestmark = [needs_rgw, pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

IMAGES = int(os.environ.get("ZSAD_SCALE_IMAGES", "20000"))
STEP = min(1000, IMAGES // 10)
"""Images a row of the table, and a run whose growth of memory is limited."""
GROWTH = 100e6
"""Bytes."""
SAMPLE_S = 0.5
OBJECTS = 3
"""Of an image: map, overlay and commit."""
ENOUGH = 5000
"""Images, for a time per image that can be compared."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A run that was watched from the first commit on: an entry a sample."""

    seconds: float
    """Of the whole process."""
    done: np.ndarray
    """Images committed, (N,)."""
    times: np.ndarray
    """Seconds since the process began, (N,)."""
    memory: np.ndarray
    """Resident bytes of the driver, (N,)."""

    def at(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return time and memory when so many images were committed, (len(images),) each."""
        scoring = slice(int(np.searchsorted(self.done, self.done[-1])) + 1)
        done, times, memory = self.done[scoring], self.times[scoring], self.memory[scoring]
        return np.interp(images, done, times), np.interp(images, done, memory)

    def seconds_each(self, begin: float, end: float) -> float:
        """Return the seconds that an image took between two parts of the run, 0…1."""
        times, _ = self.at(np.array([begin, end]) * IMAGES)
        return float(times[1] - times[0]) / ((end - begin) * IMAGES)

    def table(self) -> str:
        """Return how time and memory went."""
        images = np.arange(0, IMAGES + 1, STEP)
        times, memory = self.at(images)
        each = np.diff(times) / STEP * 1e3
        rows = zip(images[1:], times[1:], each, memory[1:] / 1e6, strict=True)
        lines = [f"{n:6d} {seconds:8.1f} {ms:9.2f} {mb:7.1f}" for n, seconds, ms, mb in rows]
        return "\n".join(["images  seconds  ms/image  RSS MB", *lines])


def draw(count: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    for number in range(count):
        encoded = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(encoded, "png")
        yield f"line/{number // 1000:03d}/{number:06d}.png", encoded.getvalue()


def watch(command: list[str | Path], rgw: Rgw, results: str, log: Path) -> Watched:
    """Run the job to its end, and look at its driver and at its bucket meanwhile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    begun, samples = time.monotonic(), []
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT, env=kept | RAY | rgw.env | {"RAY_ADDRESS": "local"}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        while process.poll() is None:
            objects, memory = count_objects(rgw, results), resident_bytes(process.pid)
            if objects > OBJECTS and memory:
                samples.append((objects, time.monotonic() - begun, memory))
            time.sleep(SAMPLE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == SCORED, log.read_text()[-3000:]
    objects, times, memory = np.array(samples, dtype=float).T
    return Watched(
        seconds=time.monotonic() - begun,
        done=np.minimum(objects / OBJECTS, IMAGES),  # the few that tell of the run aside
        times=times,
        memory=memory,
    )


def count_objects(rgw: Rgw, bucket: str) -> int:
    """Ask the gateway how many objects a bucket holds: it knows without listing them."""
    answer = rgw.client.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    return int(answer["x-rgw-object-count"])


def resident_bytes(process: int) -> int:
    """Return the resident memory of a child process, 0 when it has ended."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_memory_and_time_per_image_do_not_grow(
    rgw: Rgw, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, results = rgw.make_bucket("scale-in"), rgw.make_bucket("scale-out")
    begun = time.monotonic()
    rgw.put("scale-in", draw(IMAGES))
    drawn = time.monotonic() - begun
    command = [
        *(sys.executable, "jobs/score_dataset.py", "--input", source, "--output", results),
        *("--checkpoint", tiny_checkpoint),
    ]
    first = watch(command, rgw, "scale-out", tmp_path / "first.log")
    before = rgw.listing("scale-out", "scans/")
    second = watch(command, rgw, "scale-out", tmp_path / "second.log")

    images = np.arange(0, IMAGES + 1, STEP)
    _, memory = first.at(images)
    with capsys.disabled():
        print(  # noqa: T201 (the numbers are what this is run for)
            f"\n{IMAGES} images drawn in {drawn:.0f} s, scored in {first.seconds:.0f} s; driver "
            f"{(memory[-1] - memory[0]) / 1e6:+.1f} MB, and finishing "
            f"{(first.memory.max() - memory.max()) / 1e6:+.1f} MB; second run "
            f"{second.seconds:.1f} s\n{first.table()}"
        )
    scores = rgw.client.get_object(Bucket="scale-out", Key="scores.parquet")["Body"].read()
    assert pq.read_table(io.BytesIO(scores)).num_rows == IMAGES
    assert sum(key.endswith("/scan.json") for key in before) == IMAGES
    assert len(before) == OBJECTS * IMAGES
    assert np.diff(memory).max() < GROWTH
    if IMAGES >= ENOUGH:
        assert first.seconds_each(0.75, 1) < 1.15 * first.seconds_each(0.25, 0.5)
    assert rgw.listing("scale-out", "scans/") == before, "the second run scored something"
