"""The Dockerfile finds what it copies, and `docker build` is sent nothing else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from job_commands import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
    if line.strip()
]


def instructions(kind: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == kind]


def copied() -> set[str]:
    """Return what the image gets from this folder."""
    return {source.rstrip("/") for rest in instructions("COPY") for source in rest.split()[:-1]}


def test_every_copied_path_is_there_and_nothing_else_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [rule for rule in ignored if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    assert [rule for rule in rules[1:] if not rule.startswith("!")] == ["**/__pycache__"]
    assert all((ROOT / path).exists() for path in copied())


def test_all_that_is_installed_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    needed = {package.rstrip("*") for package in packages}
    needed |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= copied()


def test_libraries_are_those_of_the_project_at_the_versions_of_the_tests(tmp_path: Path) -> None:
    (install,) = (run for run in instructions("RUN") if "requirements.txt" in run)
    assert "--constraint constraints.txt" in install
    before_pip = install.partition("&& pip")[0].replace("/tmp/", f"{shlex.quote(str(tmp_path))}/")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", before_pip], cwd=ROOT, check=True, timeout=60, env={**os.environ, "PATH": path}
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["aws"]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted


def test_image_has_the_python_of_the_constraints_and_runs_as_nobody() -> None:
    (base,) = instructions("FROM")
    (python,) = re.findall(r"CPython (\d+\.\d+)", (ROOT / "constraints.txt").read_text())
    assert base.startswith(f"python:{python}-slim")
    assert INSTRUCTIONS[-2] == ["USER", "zsad"]
    assert not instructions("ENTRYPOINT"), "`ray up` starts `bash` in the image"


def test_no_credential_is_in_the_image() -> None:
    assert not re.search(r"(?i)secret|password|token|access_key", DOCKERFILE)
