"""The configuration: command line, YAML, validation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from io_adapters.scan import Kind, Plane
from jobs.config import parse_config
from jobs.settings import ConfigError
from zsad.detectors import Domain

USUAL = ["--input", "in", "--output", "out", "--checkpoint", "model"]


def test_relative_paths_become_absolute_and_buckets_stay() -> None:
    config = parse_config(["--input", "in", "s3://bucket/x/", "--output", "out", *USUAL[4:]])
    assert config.input == (str(Path("in").resolve()), "s3://bucket/x")
    assert config.checkpoint == str(Path("model").resolve())


def test_command_line_wins_over_yaml(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("input: /data\noutput: /out\ncheckpoint: /m\nplane: coronal\nlimit: 3\n")
    config = parse_config(["--config", str(file), "--limit", "5"])
    assert (config.input, config.plane, config.limit) == (("/data",), Plane.CORONAL, 5)


def test_unknown_yaml_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("inptu: /data\n")
    with pytest.raises(ConfigError, match="inptu"):
        parse_config(["--config", str(file)])


@pytest.mark.parametrize("missing", ["input", "output", "checkpoint"])
def test_what_is_missing_is_named(missing: str) -> None:
    at = USUAL.index(f"--{missing}")
    with pytest.raises(ConfigError, match=f"^{missing} is missing"):
        parse_config(USUAL[:at] + USUAL[at + 2 :])


def test_domain_follows_the_kind_unless_it_is_given() -> None:
    usual = parse_config(USUAL)
    assert usual.domain_of(Kind.IMAGE) is Domain.INDUSTRIAL
    assert usual.domain_of(Kind.NIFTI) is Domain.MEDICAL
    medical = parse_config([*USUAL, "--domain", "medical"])
    assert medical.domain_of(Kind.IMAGE) is Domain.MEDICAL


def test_a_wrong_value_in_yaml_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("plane: diagonal\n")
    with pytest.raises(ConfigError, match="diagonal"):
        parse_config(["--config", str(file), *USUAL])


@pytest.mark.parametrize(
    ("given", "outputs"), [("pm,sr,pm", ["pm", "sr"]), ("none", []), (" seg , sc", ["seg", "sc"])]
)
def test_dicom_outputs_are_a_list_of_kinds(given: str, outputs: list[str]) -> None:
    assert list(parse_config([*USUAL, "--dicom-output", given]).dicom_output) == outputs


def test_dicom_outputs_may_be_a_list_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("dicom_output: [sr, sc]\nwindow: lung\ncrop: foreground\nplane: all\n")
    config = parse_config(["--config", str(file), *USUAL])
    assert list(config.dicom_output) == ["sr", "sc"]
    assert (config.window, config.crop, config.plane) == ("lung", "foreground", "all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dicom-output", "seg,rtstruct"], "seg,rtstruct: choose from seg, sc, pm, sr, or none"),
        (["--window", "heart"], "--window heart: choose from auto, brain"),
        (["--window=80,0"], "--window 80,0: choose from"),
        (["--gpus-per-worker", "1.5"], "--gpus-per-worker 1.5: a part of one, or whole ones"),
        (["--gpus-per-worker", "-1"], "--gpus-per-worker -1"),
        (["--cpus-per-worker", "0"], "--cpus-per-worker 0: must be at least 1"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--no-progress-timeout", "0"], "--no-progress-timeout 0: must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config([*USUAL, *arguments])


def test_a_submitted_job_needs_absolute_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="--input in: give `ray job submit` an absolute path"):
        parse_config(USUAL)


SLOW = {"torch", "open_clip", "scipy", "pandas", "highdicom", "nibabel", "pyarrow", "ray.data"}
"""Each takes from a tenth of a second to three seconds to import."""


def imported(code: str, *arguments: str) -> set[str]:
    """Return which of `SLOW` a new process has imported when it is through with some code."""
    code += f"; import sys; print('\\n', *({SLOW!r} & set(sys.modules)))"
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_what_is_wrong_with_a_command_is_told_without_slow_imports(tmp_path: Path) -> None:
    code = "import sys, jobs.score_dataset as job; assert job.main(sys.argv[1:]) == 2"
    usual = ["--input", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    assert imported(code, *usual, "--checkpoint", "tiny") == set()


def test_looking_at_a_checkpoint_does_not_import_open_clip() -> None:
    code = "from zsad.detectors import complete_checkpoint; complete_checkpoint('tiny')"
    assert "open_clip" not in imported(code)
