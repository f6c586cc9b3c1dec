"""What the cluster's files and page tell people and machines to run is what the job understands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_commands import ROOT, on_this_machine, shown_commands

from jobs.config import parse_config

SHOWN_IN = ["cluster.yaml", "Dockerfile", "kubernetes/rayjob.yaml", "docs/clusters.md"]


def text_of(name: str) -> str:
    if name == "kubernetes/rayjob.yaml":  # the entrypoint is folded there, not continued
        return str(yaml.safe_load((ROOT / name).read_text())["spec"]["entrypoint"])
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", SHOWN_IN)
def test_shown_commands_are_accepted_by_the_job(name: str, tmp_path: Path) -> None:
    commands = shown_commands(text_of(name))
    assert commands
    for command in commands:
        assert parse_config(on_this_machine(command, tmp_path)).input


def weights_command(name: str) -> str:
    """Return the Python that brings the weights to a machine."""
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    if name == "cluster.yaml":
        (command,) = config["head_setup_commands"]
        return str(command).removeprefix('python -c "').removesuffix('"')
    head = config["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    python, option, program = head["initContainers"][0]["command"]
    assert (python, option) == ("python", "-c")
    return str(program)


@pytest.mark.parametrize("name", ["cluster.yaml", "kubernetes/rayjob.yaml"])
def test_weights_arrive_in_the_folder_that_the_job_is_told(name: str, tmp_path: Path) -> None:
    bucket, models = tmp_path / "bucket", tmp_path / "models"
    (bucket / "aaclip").mkdir(parents=True)
    models.mkdir()  # the image, or the volume, has it
    (bucket / "model.safetensors").write_bytes(b"weights")
    (bucket / "aaclip" / "text_adapter.pth").write_bytes(b"more")

    program = weights_command(name)
    assert "'s3'" in program and "'/models/'" in program
    program = program.replace("'s3'", "'file'").replace("s3://my-models/zsad/", f"{bucket}/")
    program = program.replace("'/models/'", f"'{models}/'")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert (models / "model.safetensors").read_bytes() == b"weights"
    assert (models / "aaclip" / "text_adapter.pth").read_bytes() == b"more"
