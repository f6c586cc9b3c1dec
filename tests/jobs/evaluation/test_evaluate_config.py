"""The evaluation's configuration is checked before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.evaluation.config import EvaluateConfig, ScoreRule, parse_config
from jobs.settings import ConfigError
from zsad.detectors import Domain

USUAL = {"data": "set", "output": "out", "checkpoint": "m.safetensors", "domain": "medical"}


def parse(**settings: str) -> EvaluateConfig:
    given = USUAL | settings
    return parse_config([part for name, value in given.items() for part in (f"--{name}", value)])


def test_paths_become_absolute_and_names_become_enums() -> None:
    config = parse(root="pictures", scores="published")
    assert Path(config.data).is_absolute()
    assert Path(str(config.root)).is_absolute()
    assert (config.domain, config.scores) == (Domain.MEDICAL, ScoreRule.PUBLISHED)


def test_command_line_wins_over_yaml(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("scores: published\nprecision: bf16\n")
    config = parse(config=str(tmp_path / "c.yaml"), precision="fp32")
    assert (config.scores, config.precision) == (ScoreRule.PUBLISHED, "fp32")


@pytest.mark.parametrize("name", sorted(USUAL))
def test_what_must_be_given_is_named(name: str, tmp_path: Path) -> None:
    rest = [part for n, v in USUAL.items() if n != name for part in (f"--{n}", v)]
    with pytest.raises(ConfigError, match=f"^{name} is missing"):
        parse_config(rest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("domain: fruit", "'fruit' is not a valid Domain"),
        ("scores: best", "'best' is not a valid ScoreRule"),
        ("precision: int8", "--precision int8"),
        ("dataset: cifar", "--dataset cifar"),
        ("colour: red", r"unknown \['colour'\]"),
    ],
)
def test_impossible_settings_of_a_file_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    rest = {name: value for name, value in USUAL.items() if not text.startswith(f"{name}:")}
    arguments = [part for name, value in rest.items() for part in (f"--{name}", value)]
    with pytest.raises(ConfigError, match=message):
        parse_config(["--config", str(tmp_path / "c.yaml"), *arguments])


def test_descriptions_are_texts_by_class_name(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text('"01": yellow ring\n')
    assert parse(descriptions=str(path)).read_descriptions() == {"01": "yellow ring"}
    assert parse().read_descriptions() == {}
    path.write_text("01: yellow ring\n")
    with pytest.raises(ConfigError, match=r"quote names .*\"01\""):
        parse(descriptions=str(path)).read_descriptions()
