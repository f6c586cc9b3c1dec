"""What the configurations of all jobs have in common: YAML files, paths, and their errors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from io_adapters.storage import absolute, is_local
from jobs.errors import ConfigError

__all__ = ["ConfigError", "gather", "rooted"]


def gather(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    known: Collection[str],
    required: Collection[str],
) -> dict[str, Any]:
    """Return the settings of a command line and of its `--config FILE.yaml`; the former win.

    Args:
        parser: leaves out what is not given (`argparse.SUPPRESS`).
        arguments: None: this process's own.
        known: the settings that there are.
        required: those that must be given, and not be empty.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or missing.
        SystemExit: the command line itself is malformed, or asks for help.
    """
    given = vars(parser.parse_args(arguments))
    file = given.pop("config", None)
    settings = (_read_yaml(Path(file), known) if file else {}) | given
    for name in required:
        if not settings.get(name):
            raise ConfigError(f"{name} is missing, in the command and in its --config (see --help)")
    return settings


def _read_yaml(path: Path, known: Collection[str]) -> dict[str, Any]:
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
