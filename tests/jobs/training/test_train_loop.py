"""The training loop in this process: what it learns, keeps, chooses and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import RECIPE, job_of, loop_of, write_config

from jobs.training import loop as train_loop
from jobs.training.loop import Meter, TrainingError, TrainingLoop, Worker
from jobs.training.state import load_state, save_state
from zsad.training.aaclip import ImageStage


class KilledError(Exception):
    """Stands for a process that ends at once."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model only waits for a second thread, for ever so long on busy CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nothing breaks."""
    told: list[dict[str, Any]] = []
    file = write_config(tmp_path_factory.mktemp("whole"))
    return loop_of(job_of(file), told).run() | {"told": told, "output": file.parent / "out"}


def losses(run: dict[str, Any], stage: str) -> list[float]:
    return [one["losses"]["loss"] for one in run["epochs"] if one["stage"] == stage]


def test_both_stages_learn(whole: dict[str, Any]) -> None:
    for stage in ("text_adapter", "image_adapter"):
        first, *_, last = losses(whole, stage)
        assert last < first


def test_progress_tells_stage_epoch_step_terms_and_time(whole: dict[str, Any]) -> None:
    told = [event["progress"] for event in whole["told"] if "progress" in event]
    last = told[-1]
    assert (last["stage"], last["epoch"], last["epochs"]) == ("image_adapter", 3, 3)
    assert last["step"] == last["steps"] == 6
    assert {"loss", "focal", "cross_entropy"} <= set(last["losses"])
    assert last["images_per_second"] > 0
    assert last["seconds_left"] == 0


def test_only_the_last_stage_is_judged(whole: dict[str, Any]) -> None:
    judged = [(one["stage"], one["epoch"]) for one in whole["epochs"] if "held_out" in one]
    assert judged == [("image_adapter", 1), ("image_adapter", 2), ("image_adapter", 3)]
    for one in whole["epochs"][2:]:
        assert 0 <= one["held_out"]["pixel_auroc"] <= 1
        assert 0 <= one["held_out"]["image_auroc"] <= 1


@pytest.mark.parametrize("epochs_before", [1, 2, 4])
def test_a_broken_run_ends_with_the_same_weights(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs_before: int
) -> None:
    saved = 0

    def save_and_end(output: str, state: Any) -> None:
        nonlocal saved
        saved += 1
        if saved > epochs_before:
            raise KilledError
        save_state(output, state)

    job = job_of(write_config(tmp_path))
    monkeypatch.setattr(train_loop, "save_state", save_and_end)
    with pytest.raises(KilledError):
        loop_of(job).run()
    monkeypatch.undo()
    told: list[dict[str, Any]] = []
    again = loop_of(job, told).run()
    assert again["weights"] == whole["weights"]
    assert [one["losses"] for one in again["epochs"]] == [one["losses"] for one in whole["epochs"]]
    assert len([event for event in told if "epoch" in event]) == 5 - epochs_before


def test_a_broken_run_with_mosaics_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE | {"text_epochs": 1, "image_epochs": 2, "augmentation": {"mosaic": 0.5}}
    unbroken = loop_of(job_of(write_config(tmp_path / "unbroken", recipe=recipe))).run()
    job = job_of(write_config(tmp_path / "broken", recipe=recipe))

    def save_and_end(output: str, state: Any) -> None:
        save_state(output, state)
        if len(state.epochs) == 2:
            raise KilledError

    monkeypatch.setattr(train_loop, "save_state", save_and_end)
    with pytest.raises(KilledError):
        loop_of(job).run()
    monkeypatch.undo()
    assert loop_of(job).run()["weights"] == unbroken["weights"]


def test_mosaics_are_made_of_the_sets_that_allow_them(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    recipe = RECIPE | {"augmentation": {"mosaic": 0.5}}
    runs = []
    for allowed in (True, False):
        folder = tmp_path / str(allowed)
        data = [{"uri": str(folder / "set"), "domain": "industrial", "mosaic": allowed}]
        runs.append(loop_of(job_of(write_config(folder, recipe=recipe, data=data))).run())
    assert runs[0]["weights"] != whole["weights"]
    assert runs[1]["weights"] == whole["weights"]


def test_a_finished_run_learns_no_more(whole: dict[str, Any], tmp_path: Path) -> None:
    job = job_of(write_config(tmp_path))
    loop_of(job).run()
    told: list[dict[str, Any]] = []
    assert loop_of(job, told).run()["weights"] == whole["weights"]
    assert [event for event in told if "epoch" in event or "progress" in event] == []


def test_another_seed_ends_elsewhere(whole: dict[str, Any], tmp_path: Path) -> None:
    other = loop_of(job_of(write_config(tmp_path), "--seed", "1")).run()
    assert other["weights"] != whole["weights"]


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_weights_are_those_of_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    kept: dict[int, Any] = {}
    judge = train_loop.judge

    def judged(detector: Any, found: Any) -> Any:
        result = judge(detector, found)
        epoch = len(kept) + 1
        kept[epoch] = {n: t.clone() for n, t in detector.image_adapter.state_dict().items()}
        quality = 1.0 if epoch == best else 0.5
        return type(result)(
            pixel_auroc=quality, image_auroc=quality, calibration=result.calibration
        )

    monkeypatch.setattr(train_loop, "judge", judged)
    loop = loop_of(job_of(write_config(tmp_path)))
    loop.run()
    trained = loop.detector.image_adapter.state_dict()
    assert all(torch.equal(trained[name], kept[best][name]) for name in trained)
    assert len(kept) == 3


def test_without_held_out_images_the_last_epoch_counts(tmp_path: Path) -> None:
    loop = loop_of(job_of(write_config(tmp_path, held_out=0)))
    result = loop.run()
    last = load_state(loop.config.output).trained
    trained = loop.detector.image_adapter.state_dict()
    assert all(torch.equal(trained[name], last[name]) for name in trained)
    assert all("held_out" not in one for one in result["epochs"])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, steps = ImageStage.forward, 0

    def diverging(self: ImageStage, batch: Any) -> dict[str, Any]:
        nonlocal steps
        steps += 1
        terms = forward(self, batch)
        return {**terms, "loss": terms["loss"] * float("nan")} if steps == 9 else terms

    monkeypatch.setattr(ImageStage, "forward", diverging)
    loop = loop_of(job_of(write_config(tmp_path)))
    with pytest.raises(TrainingError, match="image_adapter, epoch 2: the loss is nan at step 3"):
        loop.run()
    state = load_state(loop.config.output)
    assert (state.stage, state.epoch) == (1, 1)
    assert all(torch.isfinite(tensor).all() for tensor in state.trained.values())


@pytest.mark.parametrize("epochs", [1, 2])
def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, epochs: int) -> None:
    recipe = RECIPE | {"text_lr": 1e38, "text_epochs": epochs, "text_batch_size": 12}
    loop = loop_of(job_of(write_config(tmp_path, recipe=recipe)))
    with pytest.raises(TrainingError, match="text_adapter, epoch"):
        loop.run()
    assert load_state(loop.config.output).trained is None


def test_both_recipes_and_bf16_train(tmp_path: Path) -> None:
    recipe = RECIPE | {"kind": "paper", "text_epochs": 1, "image_epochs": 1}
    result = loop_of(job_of(write_config(tmp_path, recipe=recipe, precision="bf16"))).run()
    assert "cross_entropy" in result["epochs"][0]["losses"]
    assert result["epochs"][1]["losses"]["loss"] > 0


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    worker = Worker(rank=0, workers=3, device=torch.device("cpu"), loaders=0)
    with pytest.raises(TrainingError, match=r"batch of 4 in text_adapter .* 3 workers"):
        TrainingLoop(job_of(write_config(tmp_path)), worker, print)


def test_a_recipe_that_does_not_fit_the_clip_is_refused(tmp_path: Path) -> None:
    job = job_of(write_config(tmp_path, recipe={"surgery_blocks": 9}))
    with pytest.raises(TrainingError, match="surgery_blocks is 9"):
        loop_of(job)


def test_means_weigh_every_image_alike() -> None:
    meter = Meter(Worker(rank=0, workers=1, device=torch.device("cpu"), loaders=0))
    meter.add({"loss": torch.tensor(1.0)}, 3)
    assert meter.recent(steps_left=0)["losses"] == {"loss": 1.0}
    meter.add({"loss": torch.tensor(5.0)}, 1)
    assert meter.recent(steps_left=0)["losses"] == {"loss": 5.0}
    assert meter.whole()["losses"] == {"loss": 2.0}
    assert meter.whole()["images"] == 4
