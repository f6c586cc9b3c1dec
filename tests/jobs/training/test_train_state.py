"""The state of a training: whole, or refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.training.state import STATE, StateError, TrainingState, load_state, save_state


class Bomb:
    """Pickled code that leaves a trace when it is executed."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    adam = torch.optim.Adam(layer.parameters(), betas=(0.5, 0.9))
    halved = torch.optim.lr_scheduler.MultiStepLR(adam, milestones=[2, 4], gamma=0.5)
    layer(torch.ones(1, 3)).sum().backward()
    for _ in range(3):
        adam.step()
        halved.step()
    saved = TrainingState(
        stage=1,
        epoch=2,
        finished=[{"w": torch.ones(2)}],
        trained=dict(layer.state_dict()),
        optimiser=adam.state_dict(),
        scheduler=halved.state_dict(),
        epochs=[{"stage": "text", "losses": {"loss": 0.5}, "held_out": None}],
    )
    save_state(str(tmp_path), saved)
    loaded = load_state(str(tmp_path))
    assert (loaded.stage, loaded.epoch, loaded.epochs) == (1, 2, saved.epochs)
    assert torch.equal(loaded.trained["weight"], layer.weight)
    assert loaded.scheduler == saved.scheduler
    moments = [state["exp_avg"] for state in loaded.optimiser["state"].values()]
    assert all(
        torch.equal(a, adam.state[p]["exp_avg"])
        for a, p in zip(moments, layer.parameters(), strict=True)
    )
    assert [file.name for file in tmp_path.iterdir()] == [STATE]


def test_the_state_can_be_in_a_bucket() -> None:
    save_state("memory://runs/one", TrainingState(stage=1, trained={"w": torch.ones(2)}))
    assert load_state("memory://runs/one").stage == 1
    assert load_state("memory://runs/two").stage == 0


def test_without_a_file_a_run_begins(tmp_path: Path) -> None:
    state = load_state(str(tmp_path))
    assert (state.stage, state.epoch, state.trained) == (0, 0, None)


def test_a_finished_stage_leaves_only_its_result() -> None:
    state = TrainingState(epoch=5, trained={"w": torch.ones(1)}, optimiser={}, scheduler={})
    state.next_stage({"w": torch.zeros(1)})
    assert (state.stage, state.epoch) == (1, 0)
    assert state.finished == [{"w": torch.zeros(1)}]
    assert state.trained is state.optimiser is state.scheduler is state.best is None


@pytest.mark.parametrize("content", [b"", b"half a file", pickle.dumps({"format": 1}, protocol=2)])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(StateError, match="remove it to train from the start"):
        load_state(str(tmp_path))


def test_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / STATE)
    with pytest.raises(StateError, match="format 99"):
        load_state(str(tmp_path))


def test_code_in_the_file_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "epochs": [Bomb()]}, tmp_path / STATE)
    with pytest.raises(StateError):
        load_state(str(tmp_path))
    assert not (tmp_path / "exploded").exists()
