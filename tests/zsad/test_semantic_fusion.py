"""Hybrid semantic fusion at its edges; the golden cases compare its numbers."""

from __future__ import annotations

import torch

from zsad.semantic_fusion import semantic_fusion, strongest


def test_fusion_of_fewer_patches_than_clusters_and_of_equal_patches() -> None:
    patches = torch.nn.functional.normalize(torch.ones(1, 2, 3, 4), dim=-1)
    fused = semantic_fusion(patches, torch.tensor([[0.3, 0.1, 0.2]]), clusters=20)
    torch.testing.assert_close(fused, torch.full((1, 4), 0.5))


def test_patches_come_highest_first_and_never_more_than_there_are() -> None:
    maps = torch.tensor([[0.3, 0.1, 0.2, 0.9]])
    assert strongest(maps, clusters=1).tolist() == [[3, 0, 2, 1]]
    assert strongest(maps.repeat(1, 5), clusters=1).shape == (1, 5)
