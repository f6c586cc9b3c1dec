"""The configuration of a training: YAML, command line, validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.settings import ConfigError
from jobs.training.config import LabelledSet, TrainConfig, parse_train_config
from zsad.detectors import Domain

USUAL = "data: [{uri: /data/visa, domain: industrial}]\noutput: /out\n"


def parse(tmp_path: Path, text: str, *arguments: str) -> TrainConfig:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    return parse_train_config(["--config", str(file), *arguments])


def test_sets_are_read_with_all_that_they_say(tmp_path: Path) -> None:
    config = parse(
        tmp_path,
        "data: [{uri: /data/list.jsonl, root: /data, domain: medical, splits: test,\n"
        "        classes: [1], descriptions: {1: brain scan}, mosaic: no}]\noutput: /out\n",
    )
    assert config.data == (
        LabelledSet(
            uri="/data/list.jsonl",
            root="/data",
            domain=Domain.MEDICAL,
            splits=("test",),
            classes=("1",),
            descriptions={"1": "brain scan"},
            mosaic=False,
        ),
    )


def test_held_out_can_be_a_share_or_sets(tmp_path: Path) -> None:
    assert parse(tmp_path, USUAL + "held_out: 0.25\n").held_out == 0.25
    held_out = parse(tmp_path, USUAL + "held_out: [{uri: /data/mpdd, domain: industrial}]").held_out
    assert held_out == (LabelledSet(uri="/data/mpdd", domain=Domain.INDUSTRIAL),)


def test_command_line_wins_over_yaml(tmp_path: Path) -> None:
    config = parse(tmp_path, USUAL + "seed: 3\nworkers: 2\n", "--seed", "5")
    assert (config.seed, config.workers) == (5, 2)


def test_relative_paths_become_absolute_and_names_of_clips_stay(tmp_path: Path) -> None:
    config = parse(tmp_path, "data: [{uri: set, domain: industrial}]\noutput: out\n")
    assert config.data[0].uri == str(Path("set").resolve())
    assert config.output == str(Path("out").resolve())
    assert parse(tmp_path, USUAL + "clip: ViT-B-16/laion2b_s34b_b88k").clip.startswith("ViT")
    assert parse(tmp_path, USUAL + "clip: c.safetensors").clip == str(
        Path("c.safetensors").resolve()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output: /out\n", "data is missing"),
        ("data: [{uri: /d, domain: industrial}]\n", "output is missing"),
        (USUAL + "epochs: 3\n", "unknown .*epochs"),
        (USUAL + "method: clipad\n", "method clipad: there are aaclip"),
        (USUAL + "precision: fp8\n", "precision fp8"),
        (USUAL + "shots: 0\n", "shots 0: must be a number of at least 1"),
        (USUAL + "workers: 0\n", "workers 0"),
        (USUAL + "held_out: 1\n", "held_out 1"),
        (USUAL + "seed: many\n", "seed 'many'"),
        (USUAL + "recipe: official\n", "recipe 'official'"),
        ("data: /d\noutput: /out\n", "data: must be a list of sets"),
        ("data: [{uri: /d}]\noutput: /out\n", r"missing \['domain'\]"),
        ("data: [{uri: /d, domain: dental}]\noutput: /out\n", "dental"),
        ("data: [{uri: /d, domain: medical, slpit: test}]\noutput: /out\n", "unknown .*slpit"),
        ("data: [{uri: /d, domain: medical, splits: [val]}]\noutput: /out\n", "splits .*val"),
        ("data: [{uri: /d, domain: medical, classes: []}]\noutput: /out\n", "classes is empty"),
        ("data: [{uri: /d, domain: medical, mosaic: 0.2}]\noutput: /out\n", r"/d: mosaic 0\.2"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(tmp_path, text)


def test_a_submitted_job_needs_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="--data set: give `ray job submit` an absolute path"):
        parse(tmp_path, "data: [{uri: set, domain: industrial}]\noutput: /out\n")
