"""The errors of every job, without what the jobs themselves import."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting that cannot work; the message names the setting, its value and what to do."""
