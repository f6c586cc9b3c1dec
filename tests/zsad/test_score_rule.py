"""A method's rule makes the maps and scores that its detector makes, without the detector."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from tiny import as_checkpoint, tiny_adaclip, tiny_detector

from zsad.backbone import WeightsError
from zsad.detectors import Domain, PatchScores, score_rule

MAPS = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
SCORES = PatchScores(maps=MAPS, image=torch.tensor([0.1, 0.5, 0.9]))


@pytest.mark.parametrize("domain", list(Domain))
@pytest.mark.parametrize("make", [tiny_detector, tiny_adaclip])
def test_a_rule_that_has_travelled_does_what_its_detector_does(make, domain) -> None:
    detector = make()
    without_weights = replace(as_checkpoint(detector), tensors={}, clip=None)
    content = pickle.dumps(score_rule(without_weights))
    assert len(content) < 2000
    rule = pickle.loads(content)
    assert rule.heat == detector.heat
    assert torch.equal(rule.render(MAPS, (40, 30), domain), detector.render(MAPS, (40, 30), domain))
    assert torch.equal(rule.slice_scores(SCORES, domain), detector.slice_scores(SCORES, domain))


def test_a_detector_whose_constants_change_goes_by_the_new_ones() -> None:
    detector = tiny_detector()
    detector.config = replace(detector.config, heat=(1.0, 2.0))
    assert detector.heat == detector.rule.heat == (1.0, 2.0)


def test_a_broken_configuration_is_told() -> None:
    broken = replace(as_checkpoint(tiny_detector()), method_config={"levels": 3})
    with pytest.raises(WeightsError, match="the configuration of aaclip"):
        score_rule(broken)
