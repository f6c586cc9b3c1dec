"""Archives of growing size: what is compared, and once for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmark import MEASURED
from jobs.benchmarking.config import ScalingConfig
from jobs.benchmarking.job_run import JobRun
from jobs.benchmarking.scaling import FACTORS, measure_scaling


def fake_run(config: ScalingConfig, scans: int) -> JobRun:
    """A run with half a second a scan, and a tenth more for scans behind the 40th."""
    seconds = 0.5 * scans + 0.05 * max(0, scans - 40)
    return JobRun(
        began=0.0,
        first_work=10.0,
        commits=tuple(
            (10 + seconds * (n + 1) / scans, config.slices_per_scan) for n in range(scans)
        ),
        ended=20 + seconds,
        driver_bytes=500_000_000 + 100_000 * scans,
        worker_bytes=900_000_000,
        failed=scans > 100,
    )


def test_ratios_are_to_the_smallest_archive() -> None:
    scaling = measure_scaling(ScalingConfig(scans=10), fake_run)
    numbers = scaling.to_dict()
    assert [run["scans"] for run in numbers["runs"].values()] == [10, 40, 160]
    assert scaling.time_ratios == [1, 1, pytest.approx((80 + 6) / 160 / 0.5)]
    assert numbers["ratio_seconds_per_scan_16x_over_1x"] == scaling.time_ratios[-1]
    assert numbers["ratio_driver_rss_16x_over_1x"] == pytest.approx(516 / 501)
    assert numbers["driver_rss_mb"] == pytest.approx(516)
    last = scaling.as_text().splitlines()[-1].split()
    assert last == ["160", "1280", "86.0", "0.537", "1.075", "516", "1.030", "900"]


def test_a_failed_scan_of_any_archive_is_a_problem() -> None:
    assert measure_scaling(ScalingConfig(scans=10), fake_run).problem == "scans failed"
    assert measure_scaling(ScalingConfig(scans=5), fake_run).problem is None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_time_grows_with_the_archive_and_memory_does_not(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    assert benchmark.main(["--scaling", "--json", str(file)]) == MEASURED
    numbers = json.loads(file.read_text())
    assert [run["scans"] for run in numbers["runs"].values()] == [20 * n for n in FACTORS]
    assert numbers["ratio_driver_rss_16x_over_1x"] < 1.15
    assert numbers["ratio_seconds_per_scan_16x_over_1x"] < 1.3  # 1.05 on a machine that is quiet
