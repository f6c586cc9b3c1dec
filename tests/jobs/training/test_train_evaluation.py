"""What an epoch is chosen by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_detector
from torch import Tensor

from io_adapters.datasets import LabelledImage
from jobs.training.batches import HeldOutBatch
from jobs.training.evaluation import HeldOutScores, judge, score_held_out
from zsad.detectors import Domain, PatchScores
from zsad.detectors.aaclip import AAClip, AAClipConfig
from zsad.maps import upsample


class Bright:
    """A detector that finds a pixel the more anomalous the brighter it is."""

    backbone_config = tiny_detector().backbone.config
    config = AAClipConfig()

    def encode_text(self, names: list[str]) -> Tensor:
        return torch.zeros(len(names), 4, 2)

    def __call__(self, pixels: Tensor, anchors: Tensor) -> PatchScores:
        maps = pixels[:, 0].float()
        return PatchScores(maps=maps, image=maps.amax((1, 2)))

    def render(self, maps: Tensor, size: tuple[int, int], domain: Domain) -> Tensor:
        return upsample(maps, size)

    def slice_scores(self, scores: PatchScores, domain: Domain) -> Tensor:
        return self.config.score_range.scale_map(scores.maps.amax((1, 2)))


def item(class_name: str, anomalous: bool, domain: str = "industrial") -> LabelledImage:
    return LabelledImage(
        image="a.png", mask=None, anomalous=anomalous, class_name=class_name, domain=domain,
        split=None,
    )  # fmt: skip


def batch_of(brightness: dict[str, list[tuple[int, bool]]]) -> HeldOutBatch:
    """Pictures of one brightness, the upper half of anomalous ones being the defect."""
    rows = [(name, *one) for name, each in brightness.items() for one in each]
    pixels = torch.zeros(len(rows), 3, 48, 48, dtype=torch.uint8)
    masks = torch.zeros(len(rows), 48, 48, dtype=torch.bool)
    for row, (_, value, anomalous) in enumerate(rows):
        masks[row, :24] = anomalous
        pixels[row, :, :24] = value
    return HeldOutBatch(pixels, masks, [item(name, anomalous) for name, _, anomalous in rows])


def judged(*batches: HeldOutBatch) -> Any:
    found = score_held_out(Bright(), batches, device=torch.device("cpu"), bf16=False)
    return judge(Bright(), found)


def test_a_perfect_detector_is_perfect() -> None:
    result = judged(batch_of({"nut": [(9, False), (200, True), (180, True)]}))
    assert (result.pixel_auroc, result.image_auroc, result.quality) == (1, 1, 1)


def test_classes_are_judged_on_their_own() -> None:
    """What is normal in one class may be brighter than what is a defect in another."""
    leaf, nut = [(5, False), (60, True)], [(100, False), (240, True)]
    assert judged(batch_of({"leaf": leaf, "nut": nut})).image_auroc == 1


def test_a_class_of_one_label_has_no_say() -> None:
    sound, upside_down = [(9, False), (250, False)], [(100, False), (50, True)]
    assert judged(batch_of({"leaf": sound, "nut": upside_down})).image_auroc == 0


def test_labels_that_no_class_has_both_of_are_compared_across_classes() -> None:
    result = judged(batch_of({"leaf": [(9, False)], "nut": [(200, True)]}))
    assert result.image_auroc == 1


def test_batches_and_workers_add_up() -> None:
    first = batch_of({"nut": [(90, False), (200, True)]})
    second = batch_of({"nut": [(110, False), (100, True)], "leaf": [(3, False), (5, True)]})
    cpu = torch.device("cpu")
    whole = score_held_out(Bright(), [first, second], device=cpu, bf16=False)
    shares = HeldOutScores()
    for share in (first, second):
        shares.merge(score_held_out(Bright(), [share], device=cpu, bf16=False))
    assert judge(Bright(), whole) == judge(Bright(), shares)


def test_the_detector_keeps_the_constants_it_is_judged_with() -> None:
    detector = Bright()
    found = score_held_out(
        detector, [batch_of({"nut": [(50, False), (200, True)]})],
        device=torch.device("cpu"), bf16=False,
    )  # fmt: skip
    result = judge(detector, found)
    assert detector.config.score_range == result.calibration.score_range
    assert result.calibration.score_range.map == (50, 200)


def test_a_real_detector_is_scored_by_its_own_rule() -> None:
    detector: AAClip = tiny_detector()
    blurred = AAClipConfig(
        levels=(2, 4), image_adapt_until=1, text_adapt_until=1, industrial_blur=(3, 0.5)
    )
    detector.config = blurred
    batch = batch_of({"nut": [(50, False), (200, True)], "leaf": [(20, False), (99, True)]})
    found = score_held_out(detector, [batch], device=torch.device("cpu"), bf16=False)
    anchors = detector.encode_text(["leaf", "nut"])[[1, 1, 0, 0]]
    expected = detector(batch.pixels, anchors)
    torch.testing.assert_close(torch.stack(found.maps), expected.maps)
    assert 0 <= judge(detector, found).quality <= 1


def test_a_map_that_is_no_number_is_refused() -> None:
    detector = Bright()
    nothing = PatchScores(torch.full((2, 48, 48), torch.nan), torch.zeros(2))
    batch = batch_of({"nut": [(50, False), (200, True)]})
    with pytest.raises(ValueError, match="NaN"):
        HeldOutScores().add(detector, batch, nothing)
