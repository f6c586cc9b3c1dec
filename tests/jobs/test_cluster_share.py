"""How many CPUs fit."""

from __future__ import annotations

import pytest
import ray

from jobs.cluster import RunError, largest_share


def machines(monkeypatch: pytest.MonkeyPatch, *each: dict[str, float]) -> None:
    nodes = [{"Alive": True, "Resources": one} for one in each]
    nodes.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (2, 6), (3, 4), (5, 2), (14, 1)])
def test_workers_get_as_many_cpus_as_fit_at_once(
    monkeypatch: pytest.MonkeyPatch, workers: int, share: int
) -> None:
    machines(monkeypatch, {"CPU": 8.0}, {"CPU": 6.0}, {})
    assert largest_share(workers, gpus=0) == share


def test_a_worker_with_a_gpu_gets_its_cpus_where_the_gpu_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines(monkeypatch, {"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0})
    assert largest_share(2, gpus=1) == 4
    assert largest_share(4, gpus=0.5) == 2


def test_what_does_not_fit_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machines(monkeypatch, {"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(RunError, match=r"2 workers with 1 GPUs .* 1 machines have 8 CPUs and 1 G"):
        largest_share(2, gpus=1)
    with pytest.raises(RunError, match="9 workers with 0 GPUs"):
        largest_share(9, gpus=0)
