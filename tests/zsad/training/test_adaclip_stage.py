"""AdaCLIP's training stage: what learns, what stays, and every variant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_adaclip

from zsad.backbone import BackboneConfig
from zsad.training import TRAINERS
from zsad.training.adaclip import AdaClipRecipe, PromptStage, config_for
from zsad.training.stage import TrainingBatch

VARIANTS = [(kind, branch) for kind in ("S", "D", "SD") for branch in ("", "V", "L", "VL")] + [
    ("", "")
]


def batch_of(count: int) -> TrainingBatch:
    rng = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, 48, 48)
    masks[0, 10:20, 10:30] = 1
    labels = torch.zeros(count, dtype=torch.int64)
    labels[0] = 1
    return TrainingBatch(
        torch.randn(count, 3, 48, 48, generator=rng), masks, labels, ["nut", "wood"][:count]
    )


def stage_of(recipe: dict[str, Any] | None = None, **settings: Any) -> PromptStage:
    stage = PromptStage(tiny_adaclip(**settings), AdaClipRecipe(**recipe or {}))
    stage.prepare(["nut", "wood"])
    return stage


@pytest.mark.parametrize(("kind", "branch"), VARIANTS)
@pytest.mark.parametrize("depth", [1, 2, 5])  # the towers have 2 and 4 blocks
def test_all_that_can_learn_learns_and_nothing_else(kind: str, branch: str, depth: int) -> None:
    """A weight without a gradient would make workers wait for each other for ever."""
    stage = stage_of(prompt_type=kind, prompt_branch=branch, prompt_depth=depth)
    before = {name: weight.clone() for name, weight in stage.detector.state_dict().items()}
    optimiser = stage.optimiser()
    terms = stage(batch_of(2))
    terms["loss"].backward()
    for name, weight in stage.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    optimiser.step()
    moved = {
        name
        for name, weight in stage.detector.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert not any(name.startswith("backbone.") for name in moved)
    learning = {n for n, w in stage.detector.named_parameters() if w.requires_grad}
    assert moved == learning
    assert any(name.startswith("visual_prompter") for name in moved) == (
        "V" in branch and "S" in kind
    )
    assert any("text_prompter" in n or "dynamic_text" in n for n in moved) == (
        "L" in branch and depth > 1
    )


def test_the_loss_is_the_sum_of_its_terms_and_falls() -> None:
    stage = stage_of({"lr": 0.003})
    optimiser = stage.optimiser()
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        terms = stage(batch_of(2))
        parts = [value for name, value in terms.items() if name != "loss"]
        torch.testing.assert_close(terms["loss"], torch.stack(parts).sum())
        terms["loss"].backward()
        optimiser.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < 0.8 * losses[0]


def test_dice_by_picture_is_another_loss_than_dice_by_row() -> None:
    by_row, by_picture = (stage_of({"dice_by_row": rows})(batch_of(2)) for rows in (True, False))
    assert float(by_row["dice_anomalous"]) != pytest.approx(float(by_picture["dice_anomalous"]))
    torch.testing.assert_close(by_row["focal"], by_picture["focal"])


def test_learns_in_bf16() -> None:
    stage = stage_of()
    with torch.autocast("cpu", torch.bfloat16):
        terms = stage(batch_of(2))
    terms["loss"].backward()
    assert terms["loss"].dtype == torch.float32
    full = stage_of()(batch_of(2))
    assert float(terms["loss"]) == pytest.approx(float(full["loss"]), rel=0.05)


def test_settings_are_read_and_levels_follow_from_clip() -> None:
    recipe = TRAINERS["adaclip"].read_recipe(
        {"lr": "1e-2", "epochs": 2, "augmentation": {"mosaic": 0.5, "mirror": False}}
    )
    assert (recipe.lr, recipe.epochs, recipe.augmentation.mosaic) == (0.01, 2, 0.5)
    backbone = BackboneConfig(architecture="ViT-L-14-336", activation="gelu", image_size=518)
    config = config_for(backbone, {"prompt_length": 3})
    assert (config.levels, config.prompt_length) == ((6, 12, 18, 24), 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"betas": [0.5, 1.0]}, "betas must be in"),
        ({"weight_decay": -1}, "weight_decay is below 0"),
        ({"rate": 1}, r"no setting \['rate'\]"),
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaClipRecipe.from_dict(wrong)
