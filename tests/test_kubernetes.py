"""kubernetes/*.yaml are what KubeRay takes, as far as that can be told without a Kubernetes."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from job_commands import ROOT, ray_version
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from jobs.cluster import startable
from jobs.placement import Wanted, place

SCHEMA = yaml.safe_load((Path(__file__).parent / "kubernetes_schema.yaml").read_text())
FILES = ("rayjob", "nightly")
OBJECTS: list[dict[str, Any]] = [
    item
    for name in FILES
    for item in yaml.safe_load_all((ROOT / "kubernetes" / f"{name}.yaml").read_text())
]
KINDS = {item["kind"]: item for item in OBJECTS}
JOB = KINDS["RayJob"]["spec"]
CLUSTER = JOB["rayClusterSpec"]
HEAD, GROUPS = CLUSTER["headGroupSpec"], {g["groupName"]: g for g in CLUSTER["workerGroupSpecs"]}
PODS = {"head": HEAD, **GROUPS}
FREE_KEYS = {"labels", "annotations", "rayStartParams"}
"""Fields whose own fields have names that anyone may choose."""


def errors(item: dict[str, Any]) -> list[str]:
    schema = {**SCHEMA, "$ref": f"#/definitions/{item['kind']}"}
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(item)]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_fit_the_schema(kind: str) -> None:
    assert errors(KINDS[kind]) == []


def fields(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every field of an object, however deep: the dict it is in, and its name."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield value, name
        if name not in FREE_KEYS:
            yield from fields(inner)
    for inner in value if isinstance(value, list) else ():
        yield from fields(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_a_typo_in_any_field_is_caught(kind: str) -> None:
    count = len(list(fields(KINDS[kind])))
    assert count >= 4
    for number in range(count):
        item = json.loads(json.dumps(KINDS[kind]))  # shares nothing, not even what anchors share
        owner, name = list(fields(item))[number]
        if name == "kind" and owner is item:
            continue  # which schema to take is asked of it
        owner[f"{name}s"] = owner.pop(name)
        assert errors(item), f"{name}s for {name}"


def test_a_value_of_the_wrong_type_is_caught() -> None:
    item = copy.deepcopy(KINDS["RayJob"])
    item["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"] = "0"
    assert errors(item) == ["'0' is not of type 'integer'"]


def test_decoding_and_scoring_have_pods_of_their_own() -> None:
    assert {name: group["labels"] for name, group in GROUPS.items()} == {
        "decode": {"zsad-role": "decode"},
        "score": {"zsad-role": "score"},
    }
    gpus = {name: resources(group).get("nvidia.com/gpu") for name, group in PODS.items()}
    assert gpus == {"head": None, "decode": None, "score": "1"}


def test_ray_s_autoscaler_understands_the_cluster_and_the_job_plans_with_it() -> None:
    seen = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "zsad", "namespace": "default"}, "spec": CLUSTER}
    )
    kinds = seen["available_node_types"]
    assert kinds[seen["head_node_type"]]["resources"]["CPU"] == 0
    assert {name: kinds[name]["labels"] for name in GROUPS} == {
        name: group["labels"] for name, group in GROUPS.items()
    }
    placement = place(startable(seen, running=[]), Wanted(), slice_flops=1e12)
    assert not placement.fused
    assert (placement.max_workers, placement.gpus) == (GROUPS["score"]["maxReplicas"], 1)
    assert placement.selector == GROUPS["score"]["labels"]
    assert placement.tasks and placement.tasks.selector == GROUPS["decode"]["labels"]


def test_machines_come_when_asked_for_and_no_work_is_done_on_the_head() -> None:
    assert CLUSTER["enableInTreeAutoscaling"]
    assert all(0 == g["minReplicas"] < g["maxReplicas"] for g in GROUPS.values())
    assert HEAD["rayStartParams"]["num-cpus"] == "0"


def container(group: dict[str, Any]) -> dict[str, Any]:
    (found,) = group["template"]["spec"]["containers"]
    return dict(found)


def resources(group: dict[str, Any]) -> dict[str, str]:
    """Return what a pod gets; Ray believes it has the limits."""
    both = container(group)["resources"]
    assert both["requests"] == both["limits"]
    return dict(both["limits"])


def gibibytes(quantity: str) -> float:
    assert quantity.endswith("Gi")
    return float(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("name", PODS)
def test_shared_memory_holds_ray_s_object_store(name: str) -> None:
    (mount,) = (m for m in container(PODS[name])["volumeMounts"] if m["mountPath"] == "/dev/shm")
    volumes = {volume["name"]: volume for volume in PODS[name]["template"]["spec"]["volumes"]}
    shared = volumes[mount["name"]]["emptyDir"]
    assert shared["medium"] == "Memory"
    memory = gibibytes(resources(PODS[name])["memory"])
    assert gibibytes(shared["sizeLimit"]) >= DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory


@pytest.mark.parametrize("name", ["head", "score"])
def test_weights_are_fetched_where_a_detector_is_loaded(name: str) -> None:
    spec = PODS[name]["template"]["spec"]
    (fetch,) = spec["initContainers"]
    (written,) = (mount["name"] for mount in fetch["volumeMounts"])
    read = [m for m in container(PODS[name])["volumeMounts"] if m["name"] == written]
    assert read == [{"name": written, "mountPath": "/models", "readOnly": True}]
    assert "emptyDir" in next(v for v in spec["volumes"] if v["name"] == written)


def test_image_and_ray_are_those_that_are_built_here() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert CLUSTER["rayVersion"] == ray_version()
    images = {
        each["image"]
        for group in PODS.values()
        for each in [*group["template"]["spec"].get("initContainers", []), container(group)]
    }
    assert [image.rpartition("/")[2] for image in images] == [f"zsad:{version}"]


def test_no_credential_is_in_the_files() -> None:
    text = "".join((ROOT / "kubernetes" / f"{name}.yaml").read_text() for name in FILES)
    assert not re.search(r"(?i)password|access_key|\b(AKIA|ASIA)[0-9A-Z]{16}", text)
    assert "Secret" not in KINDS
    assert all(group["template"]["spec"]["serviceAccountName"] == "zsad" for group in PODS.values())


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 0), (1, 1), (2, 1), (137, 1)])
def test_inputs_that_fail_are_no_reason_for_a_new_cluster(
    code: int, ends: int, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    # KubeRay puts the entrypoint into a shell's command, unquoted; `ray job submit` quotes it anew.
    words = subprocess.check_output(
        ["bash", "-c", f"printf '%s\\n' {JOB['entrypoint']}"], text=True
    )
    submitted = shlex.join(words.splitlines())
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert (
        subprocess.run(submitted, shell=True, env=path, timeout=20, check=False).returncode == ends
    )


def test_a_lost_cluster_is_replaced_and_a_finished_one_removed() -> None:
    assert JOB["backoffLimit"] >= 1
    assert JOB["shutdownAfterJobFinishes"]


def nightly_steps() -> list[dict[str, Any]]:
    pod = KINDS["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def test_a_night_waits_for_its_run_so_that_no_two_overlap() -> None:
    assert KINDS["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    commands = [step["command"][1:] for step in nightly_steps()]
    assert [command[0] for command in commands] == ["delete", "create", "wait", "wait"]
    name = KINDS["RayJob"]["metadata"]["name"]
    assert commands[0][1:3] == ["rayjob", name]
    assert commands[2][1] == commands[3][1] == f"rayjob/{name}"
    (timeout,) = (word for word in commands[2] if word.startswith("--timeout="))
    hours = int(timeout.removeprefix("--timeout=").removesuffix("h"))
    assert hours * 3600 > JOB["activeDeadlineSeconds"]


def test_a_night_starts_the_run_of_rayjob_yaml() -> None:
    (start,) = (step for step in nightly_steps() if step["command"][1] == "create")
    (mount,) = start["volumeMounts"]
    assert start["command"][2] == f"--filename={mount['mountPath']}/rayjob.yaml"
    pod = KINDS["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
    header = (ROOT / "kubernetes" / "nightly.yaml").read_text()
    made = f"create configmap {volume['configMap']['name']} --from-file=kubernetes/rayjob.yaml"
    assert made in header


def test_a_night_may_do_what_its_steps_do_and_nothing_else() -> None:
    (rule,) = KINDS["Role"]["rules"]
    assert rule == {
        "apiGroups": ["ray.io"],
        "resources": ["rayjobs"],
        "verbs": ["get", "list", "watch", "create", "delete"],
    }
    account = KINDS["ServiceAccount"]["metadata"]["name"]
    pod = KINDS["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account
    assert KINDS["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    assert KINDS["RoleBinding"]["roleRef"]["name"] == KINDS["Role"]["metadata"]["name"]
