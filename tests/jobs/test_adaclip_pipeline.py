"""AdaCLIP through the jobs: trained for a few steps, resumed, then an archive is scored with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from training_runs import job_of, loop_of, write_config

from jobs.score_dataset import SOME_FAILED
from jobs.score_dataset import main as score
from jobs.train import TRAINED
from jobs.train import main as train
from zsad.checkpoints import load_checkpoint

SETTINGS: dict[str, Any] = {
    "method": "adaclip",
    "method_config": {"levels": [2, 4], "prompt_depth": 2, "prompt_length": 3, "clusters": 4},
    "recipe": {"epochs": 2, "batch_size": 2, "lr": 0.003},
    "include_clip": True,
}


@pytest.fixture(scope="module")
def checkpoint(small_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_config(tmp_path_factory.mktemp("adaclip"), **SETTINGS)
    assert train(["--config", str(file)]) == TRAINED
    return file.parent / "out" / "model.safetensors"


def scores_and_maps(
    archive: Path, checkpoint: Path, output: Path, **options: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    settings = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    settings = [part.replace("_", "-") if part.startswith("--") else part for part in settings]
    code = score(
        [
            *("--input", str(archive), "--output", str(output), "--detector", "adaclip"),
            *("--checkpoint", str(checkpoint), *settings),
        ]
    )
    assert code == SOME_FAILED  # the archive holds broken files
    rows = pq.read_table(output / "scores.parquet").to_pylist()
    maps = {
        row["scan_id"]: np.asarray(nib.load(output / row["map"]).dataobj)
        for row in rows
        if row["map"].endswith(".nii.gz")
    }
    return {row["scan_id"]: row["score"] for row in rows}, maps


def test_the_checkpoint_holds_what_was_trained(checkpoint: Path) -> None:
    stored = load_checkpoint(checkpoint)
    assert stored.method == "adaclip"
    assert stored.backbone.position_resize == "bicubic"
    assert stored.training is not None
    assert stored.training["recipe"]["augmentation"]["mosaic"] == 0.2
    assert stored.training["chosen"]["stage"] == "prompts"
    assert {name.split(".")[0] for name in stored.tensors} == {
        *("text_prompter", "visual_prompter", "patch_token_layer", "cls_token_layer"),
        *("dynamic_visual_prompt_generator", "dynamic_text_prompt_generator"),
    }


def test_batch_sizes_and_workers_do_not_change_scores(
    archive: Path, checkpoint: Path, tmp_path: Path
) -> None:
    first, first_maps = scores_and_maps(archive, checkpoint, tmp_path / "a", batch_size=1)
    other, other_maps = scores_and_maps(
        archive, checkpoint, tmp_path / "b", batch_size=7, workers=2
    )
    assert len(first) == 5
    assert other == pytest.approx(first, rel=1e-4, abs=1e-5)
    assert set(first_maps) == set(other_maps)
    for scan, map_ in first_maps.items():
        np.testing.assert_allclose(other_maps[scan], map_, atol=1e-3, rtol=0)  # float16 steps


def test_a_broken_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, broken = (tmp_path / name for name in ("whole", "broken"))
    for folder in (whole, broken):
        folder.mkdir()
    expected = loop_of(job_of(write_config(whole, **SETTINGS))).run()
    file = write_config(broken, **SETTINGS)

    class Stop(Exception):  # noqa: N818
        pass

    def stop_after_an_epoch(event: dict[str, Any]) -> None:
        if "epoch" in event:
            raise Stop

    loop = loop_of(job_of(file))
    loop.tell = stop_after_an_epoch
    with pytest.raises(Stop):
        loop.run()
    result = loop_of(job_of(file)).run()
    assert result["weights"] == expected["weights"]
    assert [one["losses"] for one in result["epochs"]] == [
        one["losses"] for one in expected["epochs"]
    ]
    assert torch.isfinite(torch.tensor(result["epochs"][-1]["losses"]["loss"]))
