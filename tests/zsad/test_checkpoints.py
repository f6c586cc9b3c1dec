"""Checkpoints: nothing is lost, nothing foreign gets in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_cases import cases
from safetensors.torch import save_file
from tiny import as_checkpoint, tiny_detector

from zsad.backbone import WeightsError
from zsad.checkpoints import load_checkpoint, save_checkpoint
from zsad.detectors import build_detector, load_detector


def test_a_stored_detector_comes_back_bit_by_bit(tmp_path: Path) -> None:
    detector = tiny_detector()
    save_checkpoint(tmp_path / "m.safetensors", as_checkpoint(detector, note="for a test"))
    loaded, checkpoint = load_detector(tmp_path / "m.safetensors")
    assert checkpoint.note == "for a test"
    assert checkpoint.backbone == detector.backbone.config
    expected = detector.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.state_dict().items())
    assert loaded.config == detector.config


def test_digest_changes_with_the_weights(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        path = tmp_path / "m.safetensors"
        save_checkpoint(path, as_checkpoint(tiny_detector(seed)))
        digests.append(load_checkpoint(path).digest)
    assert digests[0] == digests[1] != digests[2]


def test_official_folder_is_read_with_its_depths_and_relu_variant() -> None:
    for folder in cases("aaclip"):
        checkpoint = load_checkpoint(folder)
        config = checkpoint.method_config
        assert checkpoint.method == "aaclip"
        assert checkpoint.backbone.activation == "gelu"
        assert config["levels"] == [6, 12, 18, 24]
        assert (config["text_adapt_until"], config["image_adapt_until"]) == (3, 6)
        assert config["relu"] is False


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08" + bytes(7) + b"{}"])
def test_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        load_checkpoint(tmp_path / "broken.safetensors")


def test_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_checkpoint(path, as_checkpoint(tiny_detector()))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors"):
        load_checkpoint(path)


def test_foreign_file_is_an_error(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not written by zsad"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_folder_without_official_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no official AA-CLIP checkpoint"):
        load_checkpoint(tmp_path)


def test_a_tensor_too_few_or_of_another_shape_is_an_error() -> None:
    checkpoint = as_checkpoint(tiny_detector())
    for change in ({}, {"text_adapter.0.fc.0.weight": torch.zeros(3, 3)}):
        tensors = dict(checkpoint.tensors) | change
        if not change:
            del tensors["text_adapter.0.fc.0.weight"]
        object.__setattr__(checkpoint, "tensors", tensors)
        with pytest.raises(WeightsError, match=r"text_adapter\.0\.fc\.0\.weight"):
            build_detector(checkpoint)
