"""What the configurations of all jobs have in common: YAML files, paths, and their errors."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from io_adapters.storage import absolute, is_local


class ConfigError(Exception):
    """A setting that cannot work; the message names the setting, its value and what to do."""


def read_yaml(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read the settings of a `--config` file.

    Raises:
        ConfigError: the file cannot be read, or names a setting that is not among the known ones.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(settings, dict) or set(settings) - set(known):
        unknown = sorted(set(settings) - set(known)) if isinstance(settings, dict) else settings
        raise ConfigError(f"--config {path}: unknown {unknown}; settings are {sorted(known)}")
    return settings


def rooted(uri: str, setting: str) -> str:
    """Make a path absolute: a submitted job runs in a copy of its folder that does not last.

    Raises:
        ConfigError: a submitted job was given a relative path.
    """
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if submitted and is_local(uri) and not Path(uri.removeprefix("file://")).is_absolute():
        raise ConfigError(f"--{setting} {uri}: give `ray job submit` an absolute path or a bucket")
    return absolute(uri)
