"""The whole training job on Ray: a checkpoint, resumed after a kill, shared by workers.

That a lost worker is replaced takes most of a minute: pytest -m slow tests/jobs/test_train.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from training_runs import RECIPE, job_of, loop_of, write_config

from jobs.train import RUN_FAILED, TRAINED, WRONG_USAGE, main
from jobs.training.fit import fit
from jobs.training.loop import TrainingJob, TrainingLoop, Worker
from zsad.checkpoints import Checkpoint, load_checkpoint
from zsad.detectors import load_detector

ROOT = Path(__file__).parents[2]


def record(file: Path) -> dict[str, Any]:
    return json.loads((file.parent / "out" / "train.json").read_text())


def trained(file: Path) -> Checkpoint:
    return load_checkpoint(file.parent / "out" / "model.safetensors")


def same_tensors(first: Checkpoint, second: Checkpoint) -> bool:
    assert set(first.tensors) == set(second.tensors)
    return all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.fixture(scope="module")
def unbroken(small_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of a run that is finished, its results beside it."""
    file = write_config(tmp_path_factory.mktemp("unbroken"), include_clip=True, note="of a test")
    assert main(["--config", str(file)]) == TRAINED
    return file


def test_the_checkpoint_is_a_detector_with_its_story(unbroken: Path) -> None:
    path = unbroken.parent / "out" / "model.safetensors"
    detector, checkpoint = load_detector(path)
    assert detector.backbone_config.image_size == 48
    assert checkpoint.note == "of a test"
    story = checkpoint.training
    assert story["recipe"]["image_lr"] == RECIPE["image_lr"]
    assert [one["images"] for one in story["data"]] == [20]
    assert story["images"] == {"training": 12, "held_out": 8}
    assert story["versions"]["torch"] == torch.__version__.split("+")[0]
    assert str(unbroken.parent) not in json.dumps(story)


def test_the_record_tells_the_epoch_that_was_chosen_and_its_constants(unbroken: Path) -> None:
    epochs = [one for one in record(unbroken)["epochs"] if one["stage"] == "image_adapter"]
    qualities = [one["held_out"]["quality"] for one in epochs]
    chosen = record(unbroken)["chosen"]
    assert chosen["epoch"] == 1 + qualities.index(max(qualities))
    constants = epochs[chosen["epoch"] - 1]["held_out"]["calibration"]
    config = trained(unbroken).method_config
    assert config["heat"] == constants["heat"]
    assert config["score_range"] == {name: constants[name] for name in ("map", "image")}


def test_ray_trains_what_the_loop_trains(unbroken: Path, tmp_path: Path) -> None:
    """Same seed, same pictures: it does not matter which process runs the loop."""
    result = loop_of(job_of(write_config(tmp_path))).run()
    there = [one["losses"]["loss"] for one in record(unbroken)["epochs"]]
    assert [one["losses"]["loss"] for one in result["epochs"]] == pytest.approx(there, rel=1e-4)


def test_a_second_start_trains_nothing(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.training.run.fit", lambda *_: pytest.fail("it trains again"))
    before = (unbroken.parent / "out" / "model.safetensors").read_bytes()
    assert main(["--config", str(unbroken)]) == TRAINED
    assert (unbroken.parent / "out" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", "7"], "seed 0 there, 7 here"),
        (["--shots", "1"], "shots null there, 1 here"),
        (["--precision", "bf16"], 'precision "fp32" there, "bf16" here'),
    ],
)
def test_other_settings_never_go_on_with_a_run(
    unbroken: Path, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(unbroken), *arguments]) == WRONG_USAGE
    assert named in capsys.readouterr().err


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    unbroken: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of stage 2, of a process with a Ray of its own."""
    file = write_config(tmp_path)
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-u", "jobs/train.py", "--config", str(file)],
        cwd=ROOT, env=os.environ | {"RAY_ADDRESS": "local"}, stdout=log, stderr=log,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while "image_adapter epoch 1 done" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    log.close()
    assert not (tmp_path / "out" / "model.safetensors").exists()
    done_before = len(record(file)["epochs"])
    assert done_before < len(record(unbroken)["epochs"])

    assert main(["--config", str(file)]) == TRAINED
    assert same_tensors(trained(file), trained(unbroken))
    losses = [[one["losses"] for one in record(run)["epochs"]] for run in (file, unbroken)]
    assert losses[0] == losses[1]


def test_two_workers_share_a_run(small_ray: None, tmp_path: Path) -> None:
    """What they train is what one worker trains, but for the order of sums.

    The official stage 1 is another matter: its attention sees the pictures of a worker.
    """
    recipe = RECIPE | {"kind": "paper", "text_epochs": 1, "image_epochs": 1}
    file = write_config(tmp_path, recipe=recipe)
    assert main(["--config", str(file), "--workers", "2"]) == TRAINED
    alone = loop_of(job_of(write_config(tmp_path / "alone", recipe=recipe))).run()
    for one, shared in zip(alone["epochs"], record(file)["epochs"], strict=True):
        assert shared["losses"]["loss"] == pytest.approx(one["losses"]["loss"], rel=1e-3)
        assert shared["images"] == one["images"] == 12


def test_workers_agree_on_the_weights_and_on_what_is_held_out(
    small_ray: None, tmp_path: Path
) -> None:
    @ray.remote(num_cpus=1)
    def run(job: TrainingJob, rank: int, meeting: str) -> dict[str, Any]:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
        )
        worker = Worker(rank=rank, workers=2, device=torch.device("cpu"), loaders=0)
        return TrainingLoop(job, worker, lambda event: None).run()

    job = job_of(write_config(tmp_path, recipe=RECIPE | {"text_epochs": 1, "image_epochs": 2}))
    first, second = ray.get([run.remote(job, rank, str(tmp_path / "meet")) for rank in (0, 1)])
    assert first["weights"] == second["weights"]
    held_out = [[one.get("held_out") for one in each["epochs"]] for each in (first, second)]
    assert held_out[0] == held_out[1]


@pytest.mark.slow
def test_a_lost_worker_is_started_again(small_ray: None, tmp_path: Path) -> None:
    killed: list[int] = []
    told: list[dict[str, Any]] = []

    def take(event: dict[str, Any]) -> None:
        told.append(event)
        if event.get("epoch", {}).get("stage") == "image_adapter" and not killed:
            killed.extend(workers_of_this_ray())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    job = job_of(write_config(tmp_path, recipe=RECIPE | {"image_epochs": 12}))
    result = fit(job, take)
    assert killed
    assert any("a worker was lost" in str(event.get("phase")) for event in told)
    assert [one["epoch"] for one in result["epochs"][2:]] == list(range(1, 13))


def workers_of_this_ray() -> list[int]:
    """Return the training processes whose parent is this session's own raylet."""
    session = ray._private.worker._global_node.get_session_dir_path()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and "ray::RayTrainWorker" in words_of(process):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if session in words_of(Path("/proc") / parent):
                found.append(int(process.name))
    return found


def words_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has just ended
        return ""


def test_a_broken_picture_is_named_and_no_trace_is_shown(
    small_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tmp_path)
    broken = next((tmp_path / "set").glob("leaf/test/good/*.png"))
    broken.write_bytes(broken.read_bytes()[:80])
    assert main(["--config", str(file)]) == RUN_FAILED
    printed = capfd.readouterr().err
    assert f"error: {broken}" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip": "/nowhere.safetensors"}, "/nowhere.safetensors"),
        ({"image_size": 50}, "image_size 50"),
        ({"activation": "relu"}, "relu"),
        ({"recipe": {"image_rate": 1}}, "recipe: no setting ['image_rate']"),
        ({"method_config": {"levels": [4, 2]}}, "method_config: levels must ascend"),
        ({"data": [{"uri": "/nowhere", "domain": "industrial"}]}, "/nowhere"),
        ({"shots": 0}, "shots 0"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_setting(
    settings: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(write_config(tmp_path, **settings))]) == WRONG_USAGE
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1
