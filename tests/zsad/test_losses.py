"""The loss terms, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from zsad.losses import dice_loss, focal_loss, orthogonality_loss, segmentation_terms

MASK = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])


def as_probabilities(anomalous: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - anomalous, anomalous], dim=1)


@pytest.mark.parametrize("shape", [(1,), (1, 2, 2)])
def test_focal_is_the_squared_doubt_times_the_log(shape: tuple[int, ...]) -> None:
    loss = focal_loss(as_probabilities(torch.full(shape, 0.8)), torch.ones(shape))
    p = (1 - 1e-5) * 0.8 + 1e-5 * 0.2 + 1e-5
    assert loss.item() == pytest.approx(-((1 - p) ** 2) * math.log(p), rel=1e-5)


def test_focal_of_a_certain_error_is_finite_and_of_a_certain_hit_nothing() -> None:
    certain = as_probabilities(torch.ones(1, 2, 2))
    assert focal_loss(certain, torch.zeros(1, 2, 2)).item() == pytest.approx(-math.log(2e-5), 1e-3)
    assert focal_loss(certain, torch.ones(1, 2, 2)).item() == pytest.approx(0, abs=1e-8)


def test_dice_adds_one_above_and_below_the_bar() -> None:
    found = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert dice_loss(found, MASK).item() == 1 - (2 * 1 + 1) / (2 + 1 + 1)
    assert dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0


def test_dice_gives_each_picture_one_vote_whatever_its_lesion_s_size() -> None:
    masks = torch.zeros(2, 4, 4)
    masks[0] = 1
    found = masks.clone()
    found[1, 0, 0] = 1  # the second picture's only error: (0 + 1) / (1 + 0 + 1)
    assert dice_loss(found, masks).item() == pytest.approx(0.5 * (1 - 1 / 2))


def test_segmentation_terms_read_the_channels_as_normal_and_anomalous() -> None:
    right = segmentation_terms(as_probabilities(MASK), MASK)
    assert [term.item() for term in right] == pytest.approx([0, 0, 0], abs=1e-7)
    half = torch.zeros(1, 2, 2)
    missed = segmentation_terms(as_probabilities(half), MASK)
    assert missed.dice_anomalous.item() == 1 - 1 / (0 + 1 + 1)
    assert missed.dice_normal.item() == pytest.approx(1 - (2 * 3 + 1) / (4 + 3 + 1))
    assert missed.total.item() == pytest.approx(sum(term.item() for term in missed))


def test_orthogonality_squares_each_cosine_or_their_mean() -> None:
    anchors = torch.tensor([[[1.0, 0.6], [0.0, 0.8]], [[1.0, -0.6], [0.0, 0.8]]])
    assert orthogonality_loss(anchors, squared_first=True).item() == pytest.approx(0.36)
    assert orthogonality_loss(anchors, squared_first=False).item() == 0
