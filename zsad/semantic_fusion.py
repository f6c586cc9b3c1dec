"""Hybrid semantic fusion: what the most anomalous patches of a picture have in common (AdaCLIP)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from zsad.kmeans import cluster

TOKENS_PER_CLUSTER = 5


def semantic_fusion(patches: Tensor, maps: Tensor, clusters: int) -> Tensor:
    """Fuse the most anomalous patches into one feature (the paper's section 3.4).

    They are clustered by what all levels say of them; each cluster has one vote.

    Args:
        patches: (B, levels, N, D).
        maps: how anomalous each is, (B, N).
        clusters: how many at most.

    Returns:
        (B, D), unit length.
    """
    levels, D = patches.shape[1], patches.shape[-1]
    top = strongest(maps, clusters)
    chosen = patches.gather(2, top[:, None, :, None].expand(-1, levels, -1, D))
    points = chosen.transpose(1, 2).flatten(2)  # (B, m, levels · D)
    labels = cluster(points, min(clusters, top.shape[1]))
    members = F.one_hot(labels, clusters).mT.to(patches.dtype)  # (B, clusters, m)
    sizes = members.sum(dim=-1, keepdim=True)
    centres = members @ chosen.mean(dim=1) / sizes.clamp_min(1)
    return F.normalize(centres.sum(dim=1) / (sizes > 0).sum(dim=1), dim=-1)


def strongest(maps: Tensor, clusters: int) -> Tensor:
    """Return the places of the most anomalous patches, highest first: (B, N) → int64 (B, m)."""
    return maps.topk(min(maps.shape[1], TOKENS_PER_CLUSTER * clusters), dim=1).indices
