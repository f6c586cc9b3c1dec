"""Frames at the same places become volumes by what tells them apart, not by how they come."""

from __future__ import annotations

import random

import numpy as np
import pytest
from dicom_files import make_instance
from hypothesis import given
from hypothesis import strategies as st

from io_adapters.dicom_volumes import Labels, label_frames, label_source, stack_frames
from io_adapters.scan import UnsupportedError

PIXELS = np.zeros((2, 2), np.int16)


@given(
    places=st.integers(1, 6),
    times=st.integers(1, 4),
    echoes=st.integers(2, 3),
    seed=st.randoms(use_true_random=False),
)
def test_volumes_are_found_again_by_their_labels(
    places: int, times: int, echoes: int, seed: random.Random
) -> None:
    expected = [(t, e, k) for k in range(places) for t in range(times) for e in range(echoes)]
    frames = expected.copy()
    seed.shuffle(frames)
    labels: list[Labels] = [{"time": t, "echo": 0.5 * e, "image": "M"} for t, e, _ in frames]
    at = [[n for n, frame in enumerate(frames) if frame[2] == k] for k in range(places)]
    stacks, flags = stack_frames(at, lambda: labels)
    assert [frames[n] for n in stacks.ravel()] == expected and flags == ["4d"]


def test_labels_are_not_asked_for_where_every_place_has_one_frame() -> None:
    stacks, flags = stack_frames([[2], [0], [1]], lambda: pytest.fail("asked"))
    assert stacks.tolist() == [[2], [0], [1]] and not flags


def test_times_order_what_no_label_tells_apart() -> None:
    labels: list[Labels] = [{"acquired": f"1200{n:02}"} for n in (9, 1, 5, 2)]
    stacks, _ = stack_frames([[0, 1], [2, 3]], lambda: labels)
    assert stacks.tolist() == [[1, 0], [3, 2]]


def test_a_label_that_a_frame_lacks_tells_nothing() -> None:
    labels: list[Labels] = [{"echo": 2.0}, {}, {"echo": 1.0}, {"echo": 2.0}]
    stacks, _ = stack_frames([[0, 1], [2, 3]], lambda: labels)
    assert stacks.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("places", "kept"), [(5, True), (4, False)])
def test_up_to_a_fifth_of_the_places_may_be_doubled(places: int, kept: bool) -> None:
    at = [[k] for k in range(places - 1)] + [[places - 1, places]]
    if kept:
        stacks, flags = stack_frames(at, lambda: [{}] * (places + 1))
        assert stacks.ravel().tolist() == list(range(places)) and flags == ["duplicates_1"]
    else:
        with pytest.raises(UnsupportedError, match="5 frames lie at 4 places"):
            stack_frames(at, lambda: [{}] * (places + 1))


def test_labels_come_from_the_part_of_a_header_that_is_kept() -> None:
    instance = make_instance(PIXELS, EchoTime="4.5", AcquisitionNumber=3, TriggerTime="0")
    instance.AcquisitionTime, instance.DiffusionGradientOrientation = "101500.25", [1.0, 0.0, 0.0]
    instance.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "700")
    source = label_source(instance)
    assert "PixelData" not in source and "PatientName" not in source
    (labels,) = label_frames(source, 1)
    assert labels == {
        "echo": 4.5,
        "acquisition": 3.0,
        "trigger": 0.0,
        "b_value": 700.0,
        "acquired": "101500.25",
        "image": "ORIGINAL\\PRIMARY\\AXIAL",
        "direction": "[1.0, 0.0, 0.0]",
    }


def test_a_b_value_of_ge_is_told_without_its_offset() -> None:
    instance = make_instance(PIXELS)
    block = instance.private_block(0x43, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "UN", b"1000000800\\8\\0\\0")
    assert label_frames(label_source(instance), 1)[0]["b_value"] == 800
