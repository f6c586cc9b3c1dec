"""The plain AA-CLIP is a faithful one: it equals the official code, picture by picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aaclip_case import AAClipCase
from golden_cases import cases
from PIL import Image

from jobs.benchmarking.plain_aaclip import PlainAAClip, PlainScores


@pytest.fixture(scope="module", params=cases("aaclip"), ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> AAClipCase:
    return AAClipCase(request.param)


@pytest.fixture(scope="module")
def scores(case: AAClipCase) -> list[PlainScores]:
    plain = PlainAAClip(case.detector.backbone, case.stored, case.detector.config)
    return [
        plain(read(case.folder / row["image_path"]), case.real_names[number])
        for row, number in zip(case.rows, case.class_of_row, strict=True)
    ]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_maps_equal_those_of_the_official_code(case: AAClipCase, scores: list[PlainScores]) -> None:
    found = np.stack([each.map for each in scores])
    np.testing.assert_allclose(found, case.expected["map_sum_Industrial"], rtol=0, atol=2e-4)


def test_image_scores_equal_those_of_the_official_code(
    case: AAClipCase, scores: list[PlainScores]
) -> None:
    found = [each.image for each in scores]
    np.testing.assert_allclose(found, case.expected["image_score"], rtol=0, atol=1e-5)
