"""cluster.yaml is what `ray up` takes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


def test_cluster_file_fits_ray_s_schema_and_its_own_check() -> None:
    raw = yaml.safe_load(CLUSTER.read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(raw)
    validate_config(prepare_config(raw))


def test_dashboard_is_not_open_to_the_network() -> None:
    commands = yaml.safe_load(CLUSTER.read_text())["head_start_ray_commands"]
    assert any("--dashboard-host=127.0.0.1" in command for command in commands)
