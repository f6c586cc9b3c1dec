"""What a person reads while a model learns."""

from __future__ import annotations

import pytest

from jobs.training.progress import Progress, epoch_line, step_line

LOSSES = {"loss": 1.25, "focal": 0.0312}


def test_a_step_tells_place_terms_rate_and_time_left() -> None:
    line = step_line(
        {
            "stage": "image_adapter",
            "epoch": 2,
            "epochs": 20,
            "step": 7,
            "steps": 90,
            "losses": LOSSES,
            "images_per_second": 12.34,
            "seconds_left": 3725,
        }
    )
    assert line == (
        "image_adapter epoch 2/20 · step 7/90 · loss 1.25, focal 0.0312 · 12.3 images/s · "
        "1:02:05 left"
    )


def test_an_epoch_tells_what_was_held_out_if_anything_was() -> None:
    record = {"stage": "image_adapter", "epoch": 2, "losses": LOSSES, "seconds": 71.6}
    assert epoch_line(record) == "image_adapter epoch 2 done · loss 1.25, focal 0.0312 · 72 s"
    judged = record | {"held_out": {"pixel_auroc": 0.91, "image_auroc": 0.8}}
    assert "held out: pixel AUROC 0.9100, image AUROC 0.8000" in epoch_line(judged)


def test_each_event_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.show({"phase": "reading the images"})
    progress.show({"epoch": {"stage": "text", "epoch": 1, "losses": LOSSES, "seconds": 1.0}})
    assert len(capsys.readouterr().out.splitlines()) == 2
