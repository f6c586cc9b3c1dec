"""cluster.yaml is what `ray up` takes, as far as that can be told without AWS."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import moto
import pytest
import ray.autoscaler
import yaml
from job_commands import ROOT
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.cluster import startable
from jobs.placement import Wanted, place

CLUSTER: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
MACHINES: dict[str, Any] = CLUSTER["available_node_types"]


def test_cluster_file_fits_ray_s_schema_and_its_own_check() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(CLUSTER)
    validate_config(prepare_config(CLUSTER))


@dataclass(frozen=True, kw_only=True)
class Aws:
    """A cluster as `ray up` has prepared it, on an AWS that knows its API and runs nothing."""

    machines: dict[str, Any]
    provider: AWSNodeProvider

    def launch(self, config: dict[str, Any]) -> list[dict[str, Any]]:
        """Start a machine as `ray up` and the autoscaler do; returns what AWS says of it."""
        started = self.provider.create_node(config, {"ray-node-type": "worker"}, 1)
        found = boto3.client("ec2").describe_instances(InstanceIds=list(started))
        return [machine for group in found["Reservations"] for machine in group["Instances"]]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # gets a key pair in .ssh
        patch.setenv("AWS_DEFAULT_REGION", CLUSTER["provider"]["region"])
        for name in ("zsad-head", "zsad-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=name)
        config = _bootstrap_config(CLUSTER, no_config_cache=True)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        yield Aws(machines=config["available_node_types"], provider=provider)


@pytest.mark.parametrize("name", MACHINES)
def test_ray_up_launches_each_kind_of_machine(aws: Aws, name: str) -> None:
    (machine,) = aws.launch(aws.machines[name]["node_config"])
    assert machine["InstanceType"] == MACHINES[name]["node_config"]["InstanceType"]
    assert machine["IamInstanceProfile"]["Arn"].endswith(
        "zsad-head" if name == "head" else "zsad-worker"
    )
    assert machine.get("InstanceLifecycle") == ("spot" if name == "decode" else None)


def test_machines_have_what_the_file_says_they_have(aws: Aws) -> None:
    types = (
        boto3.client("ec2")
        .get_paginator("describe_instance_types")
        .paginate(
            InstanceTypes=[machine["node_config"]["InstanceType"] for machine in MACHINES.values()]
        )
    )
    known = {kind["InstanceType"]: kind for page in types for kind in page["InstanceTypes"]}
    for name in ("decode", "score"):
        kind = known[MACHINES[name]["node_config"]["InstanceType"]]
        gpus = sum(gpu["Count"] for gpu in kind.get("GpuInfo", {}).get("Gpus", []))
        said = MACHINES[name]["resources"]
        assert said == {"CPU": kind["VCpuInfo"]["DefaultVCpus"]} | ({"GPU": gpus} if gpus else {})


def test_a_misspelt_setting_of_a_machine_is_caught(aws: Aws) -> None:
    config = dict(aws.machines["decode"]["node_config"])
    config["InstanceMarketOption"] = config.pop("InstanceMarketOptions")
    with pytest.raises(Exception, match=r"Unknown parameter.*InstanceMarketOption"):
        aws.launch(config)


def test_decoding_and_scoring_have_machines_of_their_own() -> None:
    labels = {
        name: machine.get("labels", {}).get("zsad-role") for name, machine in MACHINES.items()
    }
    assert labels == {"head": None, "decode": "decode", "score": "score"}
    assert "GPU" not in MACHINES["decode"]["resources"]
    workers = [machine["max_workers"] for machine in MACHINES.values()]
    assert sum(workers) <= CLUSTER["max_workers"], "both kinds can be had at once, all of them"


def test_job_plans_with_machines_that_no_one_has_started_yet() -> None:
    placement = place(startable(CLUSTER, running=[]), Wanted(), slice_flops=1e12)
    assert not placement.fused
    assert (placement.max_workers, placement.gpus) == (MACHINES["score"]["max_workers"], 1)
    assert placement.selector == {"zsad-role": "score"}
    assert placement.tasks and placement.tasks.selector == {"zsad-role": "decode"}


def test_no_work_is_done_on_the_head() -> None:
    head = MACHINES[CLUSTER["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert "--num-cpus=0" in CLUSTER["head_start_ray_commands"][-1]


def test_dashboard_is_not_open_to_the_network() -> None:
    (start,) = (c for c in CLUSTER["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start


def test_shared_memory_is_left_to_ray_which_measures_each_machine() -> None:
    docker = CLUSTER["docker"]
    assert not docker.get("disable_shm_size_detection")
    assert not any("--shm-size" in option for option in docker["run_options"])


def test_one_region_everywhere() -> None:
    region = CLUSTER["provider"]["region"]
    named = re.findall(r"\b[a-z]{2}-[a-z]+-\d", (ROOT / "cluster.yaml").read_text())
    assert set(named) == {region}


def test_image_is_the_one_that_is_built_here() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    registry, _, name = CLUSTER["docker"]["image"].rpartition("/")
    assert name == f"zsad:{version}"
    assert any("docker login" in c and registry in c for c in CLUSTER["initialization_commands"])


def test_no_credential_is_in_the_file() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"(?i)secret|aws_credentials|access_key|\b(AKIA|ASIA)[0-9A-Z]{16}", text)
    assert re.findall(r"(?i)\S*password\S*", text) == ["get-login-password", "--password-stdin"]
