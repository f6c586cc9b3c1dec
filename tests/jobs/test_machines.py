"""Which Ray a job joins, what machines it has, and what its autoscaler may start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ports import free_ports
from ray.autoscaler._private.kuberay import node_provider
from ray.autoscaler._private.util import prepare_config

from jobs import cluster
from jobs.cluster import ROLE, Machine, RunError, connect, machines, startable
from jobs.placement import Wanted, place
from jobs.score_dataset import RUN_FAILED, main

ROOT = Path(__file__).parents[2]
HEAD = Machine(cpus=0)
PATIENCE_S = 5.0


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what sets RAY_ADDRESS in a process that has joined no Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return lambda address: monkeypatch.setenv("RAY_ADDRESS", address)


def test_a_cluster_that_does_not_answer_is_told_at_once(outside: Callable[[str], None]) -> None:
    (port,) = free_ports(1)
    outside(f"127.0.0.1:{port}")
    begin = time.monotonic()
    for join in (connect, machines):
        with pytest.raises(RunError, match=rf"no Ray answers at .*:{port} .*RAY_ADDRESS=local"):
            join()
    assert time.monotonic() - begin < PATIENCE_S


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "a http:// address: .* use `ray job submit`"),
        ("ray://127.0.0.1:10001", "a ray:// address"),
        ("nonsense", "RAY_ADDRESS=nonsense: ValueError"),
    ],
)
def test_an_address_of_another_kind_is_told(
    outside: Callable[[str], None], address: str, message: str
) -> None:
    outside(address)
    with pytest.raises(RunError, match=message):
        connect()


def test_without_a_cluster_there_is_this_machine_and_nothing_is_started(
    outside: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outside("local")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 3, "GPU": 2}')  # as Ray takes it
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert [(one.cpus, one.gpus) for one in machines()] == [(3, 2)]


@pytest.mark.usefixtures("small_ray")
def test_the_machines_of_a_cluster_are_those_that_run() -> None:
    assert [(one.cpus, one.gpus, one.running) for one in machines()] == [(2, 0, True)]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (["--gpus-per-worker", "1"], "--gpus-per-worker 1: the cluster has no GPU: 1 machine with"),
        (["--cpus-per-worker", "4096"], "--cpus-per-worker 4096: no machine for workers has more"),
        (["--workers", "4096"], "4096 workers with 1 CPU each do not fit: 1 machine with"),
    ],
)
def test_the_job_refuses_what_the_machine_has_not(
    outside: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    tmp_path: Path,
    wish: list[str],
    message: str,
) -> None:
    outside("local")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2, "GPU": 0}')
    begin = time.monotonic()
    usual = ["--input", tmp_path, "--output", tmp_path / "out", "--checkpoint", tiny_checkpoint]
    assert main([*(str(argument) for argument in usual), *wish]) == RUN_FAILED
    assert time.monotonic() - begin < PATIENCE_S
    assert message in capsys.readouterr().err


def aws() -> dict[str, Any]:
    """Return what `ray up` makes of our cluster file for the head."""
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    return config


def test_an_autoscaler_may_start_all_but_its_head() -> None:
    found = startable(aws(), [HEAD])
    assert [(m.cpus, m.gpus, m.role, m.count, m.running) for m in found] == [
        (16, 0, "decode", 8, False),
        (8, 1, "score", 4, False),
    ]
    assert place([HEAD, *found], Wanted(), slice_flops=1e12).max_workers == 4


def test_what_runs_already_is_not_started_again() -> None:
    running = [HEAD, *[Machine(cpus=8, gpus=1, labels={ROLE: "score"})] * 4]
    assert [machine.role for machine in startable(aws(), running)] == ["decode"]


def test_without_an_autoscaler_nothing_is_started() -> None:
    assert startable({}, [HEAD]) == []


@pytest.mark.usefixtures("small_ray")
def test_on_the_head_of_ray_up_the_autoscaler_s_own_file_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bootstrap.yaml"
    monkeypatch.setattr(cluster, "BOOTSTRAP_FILE", file)
    file.write_text(yaml.safe_dump(aws()))
    assert [machine.role for machine in machines()] == [None, "decode", "score"]
    file.write_text("just a string")
    assert len(machines()) == 1
    assert "what the autoscaler may start is unknown" in capsys.readouterr().out


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize("autoscaling", [True, False])
def test_on_the_head_of_kuberay_kubernetes_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autoscaling: bool
) -> None:
    job = yaml.safe_load((ROOT / "kubernetes" / "rayjob.yaml").read_text())
    spec = job["spec"]["rayClusterSpec"] | {"enableInTreeAutoscaling": autoscaling}
    resource = {"metadata": {"name": "zsad-x", "namespace": "nightly"}, "spec": spec}
    asked = []

    def get(client: node_provider.KubernetesHttpApiClient, path: str) -> dict[str, Any]:
        asked.append((client._namespace, path))
        return resource

    namespace = tmp_path / "namespace"
    namespace.write_text("nightly\n")
    monkeypatch.setattr(cluster, "BOOTSTRAP_FILE", tmp_path / "none")
    monkeypatch.setattr(cluster, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("RAY_CLUSTER_NAME", "zsad-x")
    monkeypatch.setattr(node_provider.KubernetesHttpApiClient, "get", get)
    found = [machine for machine in machines() if not machine.running]
    assert asked == [("nightly", "rayclusters/zsad-x")]
    groups = [group["groupName"] for group in spec["workerGroupSpecs"]] if autoscaling else []
    assert len(found) == len(groups)
    assert all(machine.role and machine.cpus and machine.count for machine in found)
