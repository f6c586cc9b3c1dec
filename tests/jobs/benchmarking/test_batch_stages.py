"""The stages of a batch: what is timed, and that timing changes nothing."""

from __future__ import annotations

import time

import pytest
import torch
from tiny import tiny_adaclip, tiny_detector

from jobs.benchmarking.batch_stages import STAGES, measure_stages
from jobs.benchmarking.pictures import draw_pictures
from jobs.benchmarking.trunk_hooks import watch_trunk
from jobs.model import Model

IMAGES = [picture.pixels for picture in draw_pictures(3, 48)]
NAMES = ["brain"] * 3


@pytest.fixture
def model() -> Model:
    model = Model(tiny_detector(), precision="fp32", threads=1)
    model.score(IMAGES, NAMES)
    return model


def test_stages_make_up_the_time_of_a_batch(model: Model) -> None:
    began = time.perf_counter()
    stages = measure_stages(model, IMAGES, NAMES, rounds=1)
    took = time.perf_counter() - began
    assert tuple(stages.seconds) == STAGES
    assert stages.seconds["trunk"] > 0
    assert min(stages.seconds.values()) >= 0
    assert sum(stages.seconds.values()) <= took
    assert (stages.slices, stages.device_bytes) == (1, None)


def test_a_slow_stage_shows(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_out = model.on.copy_out

    def slowly(scores: object) -> object:
        time.sleep(0.2)
        return copy_out(scores)

    monkeypatch.setattr(model.on, "copy_out", slowly)
    stages = measure_stages(model, IMAGES, NAMES, rounds=1)
    assert stages.seconds["copy_out"] >= 0.2
    assert max(stages.seconds, key=lambda name: stages.seconds[name]) == "copy_out"
    row = next(line for line in stages.as_text().splitlines() if line.startswith("copy_out"))
    assert float(row.split()[1]) >= 200


def test_the_model_is_as_before(model: Model) -> None:
    device, expected = model.on, model.score(IMAGES, NAMES)
    measure_stages(model, IMAGES, NAMES, rounds=2)
    assert model.on is device
    assert torch.equal(model.score(IMAGES, NAMES).maps, expected.maps)
    assert not any(module._forward_hooks for module in model.detector.modules())


def test_each_pass_through_the_trunk_is_seen() -> None:
    detector = tiny_adaclip()  # looks at a picture without and with prompts
    model = Model(detector, precision="fp32", threads=1)
    readings = iter(range(100))
    with watch_trunk(model.detector, lambda: next(readings)) as passes:
        model.score(IMAGES[:1], NAMES[:1])
    blocks = len(detector.backbone.clip.visual.transformer.resblocks)
    assert passes == [(0, blocks), (blocks + 1, 2 * blocks + 1)]
