"""A training run as its driver sees it, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import RECIPE, write_config

from jobs.settings import ConfigError
from jobs.training.config import parse_train_config
from jobs.training.lists import read_lists
from jobs.training.run import TrainingRun


def started(folder: Path, **settings: object) -> TrainingRun:
    """Return a run that has left its record."""
    config = parse_train_config(["--config", str(write_config(folder, **settings))])
    run = TrainingRun(config, read_lists(config))
    run._write_record()
    return run


@pytest.mark.parametrize(
    ("augmentation", "named"),
    [({"mosaic": 0.2}, "mosaic 0.0 there, 0.2 here"), ({"mirror": False}, "mirror true there")],
)
def test_a_run_never_goes_on_with_other_augmentations(
    tmp_path: Path, augmentation: dict[str, object], named: str
) -> None:
    started(tmp_path)
    with pytest.raises(ConfigError, match=f"recipe.augmentation.{named}"):
        started(tmp_path, recipe=RECIPE | {"augmentation": augmentation})


def test_a_run_never_goes_on_with_other_sets_in_mosaics(tmp_path: Path) -> None:
    started(tmp_path)
    one = {"uri": str(tmp_path / "set"), "domain": "industrial"}
    with pytest.raises(ConfigError, match="holds a run with other settings: unmixed_images"):
        started(tmp_path, data=[one | {"mosaic": False}])
    started(tmp_path, data=[one | {"mosaic": True}])
