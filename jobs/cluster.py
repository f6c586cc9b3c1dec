"""The Ray cluster that a job runs on: joining it, and what machines it has or may still start."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import requests
import yaml
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._private.services import canonicalize_bootstrap_address
from ray.autoscaler._private.kuberay import autoscaling_config, node_provider
from ray.exceptions import RayError

ANSWER_S = 4.0
"""How long a cluster may take to answer; Ray itself would try for minutes."""
ROLE = "zsad-role"
"""Label of machines that have one task: "decode" reads and publishes, "score" holds detectors."""
BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on a head, and starts Ray there with."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
HEAD_RESOURCE = "node:__internal_head__"


class RunError(Exception):
    """The run itself failed, not one of its inputs; what is committed stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine of the cluster, or several alike that its autoscaler may start."""

    cpus: float
    gpus: float = 0.0
    memory: float | None = None
    """Bytes for processes; None: unknown."""
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    running: bool = True
    """False: not yet."""

    @property
    def role(self) -> str | None:
        """The one task it has, if it has only one."""
        return self.labels.get(ROLE)


def connect() -> None:
    """Join the Ray cluster of this machine or job, or start one for this process alone.

    Raises:
        RunError: the cluster that the environment names does not answer.
    """
    for library in ("ray.data", "ray.train"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    _find_cluster()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves a hospital
    # Ray's C++ core prints a harmless "error" about every actor pool (ray-project/ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(
            include_dashboard=False,  # of a Ray of our own: it shows nothing that we do not print
            log_to_driver=False,  # workers' logs stay in Ray's folder; failures come back as rows
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RayError) as error:
        raise RunError(
            f"no Ray cluster to join ({type(error).__name__}): start it, or set RAY_ADDRESS=local"
        ) from error


def machines() -> list[Machine]:
    """Return the machines that a run can use, those that the autoscaler may start included.

    Nothing is started to find out: without a cluster to join, it is this machine.

    Raises:
        RunError: the cluster that the environment names does not answer.
    """
    if not ray.is_initialized():
        if _find_cluster() is None:
            here = ResourceAndLabelSpec().resolve(is_head=True)
            has = {"CPU": here.num_cpus, "GPU": here.num_gpus, "memory": here.memory}
            return [_machine(has, here.labels)]
        connect()
    alive = [node for node in ray.nodes() if node["Alive"]]
    running = [_machine(node["Resources"], node["Labels"]) for node in alive]
    return running + startable(_autoscaling(alive) or {}, running)


def startable(autoscaling: Mapping[str, Any], running: Sequence[Machine]) -> list[Machine]:
    """Return the machines that an autoscaler may start beside those that run.

    Args:
        autoscaling: configuration of a cluster, as `ray up` takes it; empty without autoscaler.
        running: machines; those that look like a node type are taken to be of it.
    """
    found = []
    most = autoscaling.get("max_workers", 0)
    for name, kind in autoscaling.get("available_node_types", {}).items():
        machine = _machine(kind.get("resources", {}), kind.get("labels", {}))
        alike = [one for one in running if _shape(one) == _shape(machine)]
        count = kind.get("max_workers", most) - len(alike)
        if name != autoscaling.get("head_node_type") and count > 0:
            found.append(dataclasses.replace(machine, count=min(count, most), running=False))
    return found


def _shape(machine: Machine) -> tuple[float, float, str | None]:
    return machine.cpus, machine.gpus, machine.role


def _machine(resources: Mapping[str, float | None], labels: Mapping[str, str] | None) -> Machine:
    return Machine(
        cpus=resources.get("CPU") or 0,
        gpus=resources.get("GPU") or 0,
        memory=resources.get("memory"),
        labels=dict(labels or {}),
    )


def _autoscaling(nodes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the configuration of the cluster's autoscaler; None where there is none to be seen.

    Ray's own record of it (`get_cluster_config`, which Ray Data reads) is empty on clusters of
    `ray up` and KubeRay, and knows no labels. So the driver looks at what the autoscaler itself
    looks at, which is there on the head, where submitted jobs run.
    """
    here = ray.get_runtime_context().get_node_id()
    if not any(node["NodeID"] == here and HEAD_RESOURCE in node["Resources"] for node in nodes):
        return None
    file = BOOTSTRAP_FILE.expanduser()
    try:
        if file.exists():
            return dict(yaml.safe_load(file.read_text()))
        if "RAY_CLUSTER_NAME" in os.environ and NAMESPACE_FILE.exists():
            return _kuberay_autoscaling(os.environ["RAY_CLUSTER_NAME"])
    except (OSError, ValueError, KeyError, requests.RequestException) as error:
        print(
            f"warning: what the autoscaler may start is unknown ({type(error).__name__}): "
            "planning with the machines that run",
            flush=True,
        )
    return None


def _kuberay_autoscaling(cluster: str) -> Mapping[str, Any] | None:
    """Ask Kubernetes, with the rights that the head's pod has for its autoscaler."""
    client = node_provider.KubernetesHttpApiClient(NAMESPACE_FILE.read_text().strip())
    resource = client.get(f"rayclusters/{cluster}")
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return None
    return dict(autoscaling_config._derive_autoscaling_config_from_ray_cr(resource))


def _find_cluster() -> str | None:
    """Return host:port of the cluster that `ray.init` would join, None if it would start one.

    Raises:
        RunError: it does not answer, or the address is of another kind.
    """
    asked = os.environ.get("RAY_ADDRESS", "")
    if "://" in asked:
        raise RunError(
            f"RAY_ADDRESS is a {asked.partition('://')[0]}:// address: from outside of a cluster "
            "use `ray job submit`; inside, RAY_ADDRESS=auto, or host:port of the head"
        )
    try:
        address = canonicalize_bootstrap_address(asked or None)  # type: ignore[arg-type]
    except (ConnectionError, ValueError, OSError) as error:
        raise RunError(f"RAY_ADDRESS={asked}: {type(error).__name__}") from error
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise RunError(
            f"no Ray answers at {address} ({type(error).__name__}): start it, or set "
            "RAY_ADDRESS=local for one of this process's own"
        ) from error
    return str(address)
