"""Score constants from labelled pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny import tiny_detector
from torch import Tensor

from zsad.calibration import Calibration, calibrate, chunks_of_domains
from zsad.detectors import Domain, PatchScores

INDUSTRIAL, MEDICAL = Domain.INDUSTRIAL, Domain.MEDICAL


class Flat:
    """A detector whose map of a picture is one value everywhere, twice as high if medical."""

    class backbone_config:  # noqa: N801
        image_size = 12

    @staticmethod
    def render(maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        factor = 2.0 if domain is MEDICAL else 1.0
        return factor * maps.amax((1, 2))[:, None, None].expand(-1, *size)


def scored(values: list[float]) -> PatchScores:
    maps = torch.tensor(values).view(-1, 1, 1).expand(-1, 3, 3)
    return PatchScores(maps=maps.clone(), image=torch.tensor(values) / 10)


def test_typical_pictures_are_0_and_1() -> None:
    scores = scored([1, 2, 3, 8, 9, 10])
    anomalous = torch.tensor([False, False, False, True, True, True])
    found = calibrate(Flat(), scores, anomalous, [INDUSTRIAL] * 6)
    assert found.score_range.map == (2, 9)
    assert found.score_range.image == pytest.approx((0.2, 0.9))
    assert found.heat[0] == pytest.approx(3, abs=0.02)  # 1 in 200 normal pixels is above
    assert found.heat[1] == 9


def test_each_picture_is_rendered_as_its_domain_is() -> None:
    anomalous = torch.tensor([False, True])
    found = calibrate(Flat(), scored([1, 4]), anomalous, [INDUSTRIAL, MEDICAL])
    assert found.score_range.map == (1, 8)


def test_a_detector_that_sees_nothing_still_gets_a_scale() -> None:
    anomalous = torch.tensor([False, True, False, True])
    worse = calibrate(Flat(), scored([5, 1, 5, 1]), anomalous, [INDUSTRIAL] * 4)
    same = calibrate(Flat(), scored([5, 5, 5, 5]), anomalous, [INDUSTRIAL] * 4)
    for found in (worse, same):
        assert found.score_range.map[0] < found.score_range.map[1]
        assert found.heat[0] < found.heat[1]


@pytest.mark.parametrize("label", [True, False])
def test_one_kind_of_picture_is_not_enough(label: bool) -> None:
    with pytest.raises(ValueError, match="of 2 pictures are anomalous"):
        calibrate(Flat(), scored([1, 2]), torch.tensor([label, label]), [INDUSTRIAL] * 2)


def test_constants_survive_json_and_enter_a_configuration() -> None:
    anomalous = torch.tensor([False, True])
    found = calibrate(Flat(), scored([1, 4]), anomalous, [INDUSTRIAL] * 2)
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    config = tiny_detector().config
    expected = replace(config, score_range=found.score_range, heat=found.heat)
    assert found.applied_to(config) == expected


def test_chunks_keep_order_and_domain_and_size() -> None:
    domains = [INDUSTRIAL] * 20 + [MEDICAL] * 3 + [INDUSTRIAL]
    chunks = list(chunks_of_domains(domains))
    assert [n for rows, _ in chunks for n in range(24)[rows]] == list(range(24))
    assert all(set(domains[rows]) == {domain} for rows, domain in chunks)
    assert [rows.stop - rows.start for rows, _ in chunks] == [16, 4, 3, 1]
