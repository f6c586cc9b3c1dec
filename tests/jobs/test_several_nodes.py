"""A cluster of several machines: all are used, each for what its label says.

The machines are raylets on this one, started by hand: `ray.cluster_utils.Cluster` would write its
address where every other Ray of this machine looks for one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports
from ray_head import BIN, RAY, run_command
from stage_runs import pictures, scores_of, stage_settings

from jobs.placement import Placement
from jobs.stages import run_stages

PICTURES = 80
HERE = Path(__file__).parent


@contextmanager
def running_cluster(head: str, others: Sequence[str]) -> Iterator[str]:
    """Run a head and other machines, each given as options of `ray start`; yields host:port."""
    gcs, client, *agents = free_ports(3 + len(others))
    address = f"127.0.0.1:{gcs}"
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder, ExitStack() as machines:
        machines.enter_context(
            running_machine(
                agents[0], "--head", f"--port={gcs}", f"--ray-client-server-port={client}",
                "--include-dashboard=false", f"--temp-dir={folder}", *head.split(),
            )
        )  # fmt: skip
        for agent, options in zip(agents[1:], others, strict=True):
            machines.enter_context(running_machine(agent, f"--address={address}", *options.split()))
        yield address


@contextmanager
def running_machine(agent_port: int, *options: str) -> Iterator[None]:
    """Run `ray start` until the block ends, which begins when Ray says that it started.

    Two that start at the same time would be in each other's way.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [
            str(BIN / "ray"), "start", "--block", "--object-store-memory=100000000",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--dashboard-agent-listen-port={agent_port}", *options,
        ],
        env=kept | RAY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said = ""
        assert process.stdout is not None
        while "Ray runtime started" not in said:
            line = process.stdout.readline()
            said += line
            assert line, said
        yield
    finally:
        process.terminate()  # only this one; `ray stop` would end all
        process.wait(timeout=60)


def score(address: str, checkpoint: Path, folder: Path, machines: int) -> dict[str, Any]:
    path = os.pathsep.join(str(part) for part in (HERE.parents[1], HERE.parent, HERE))
    told = run_command(
        sys.executable, HERE / "run_on_nodes.py", checkpoint, folder, str(PICTURES), str(machines),
        RAY_ADDRESS=address, PYTHONPATH=path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    result: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    assert result["waited_in_vain"] == []
    return result


@pytest.fixture(scope="module")
def alone(
    small_ray: None, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """Scores of a single machine."""
    folder = tmp_path_factory.mktemp("alone")
    settings = stage_settings(tiny_checkpoint, folder / "out")
    placement = Placement(min_workers=1, max_workers=1, cpus=2)
    return scores_of(list(run_stages(pictures(folder / "in", PICTURES), settings, placement)))


def test_all_machines_score_and_their_scores_are_those_of_one(
    alone: dict[str, float], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with running_cluster("--num-cpus=1", ["--num-cpus=1", "--num-cpus=1"]) as address:
        told = score(address, tiny_checkpoint, tmp_path, 3)
    assert told["fused"]
    assert told["workers"] == 3
    assert len(told["roles"]) == 3
    assert set(told["nodes"]["read"]) == set(told["nodes"]["score"]) == set(told["roles"])
    assert told["scores"] == pytest.approx(alone, abs=1e-5)


def test_machines_with_roles_read_or_score_but_not_both(
    alone: dict[str, float], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    decode = "--num-cpus=1 --labels=zsad-role=decode"
    scoring = "--num-cpus=1 --labels=zsad-role=score"
    with running_cluster("--num-cpus=0", [decode, scoring]) as address:
        told = score(address, tiny_checkpoint, tmp_path, 1)
    assert not told["fused"]
    where = {stage: {told["roles"][n] for n in nodes} for stage, nodes in told["nodes"].items()}
    assert where == {"read": {"decode"}, "score": {"score"}, "publish": {"decode"}}
    assert told["scores"] == pytest.approx(alone, abs=1e-5)
