"""K-means over a few points of many channels, for a batch at once, on any device, seeded.

It walks the steps of scikit-learn's `KMeans(n_clusters, n_init=runs, random_state=seed)` with the
same random numbers (greedy k-means++ of Arthur and Vassilvitskii, 2007, then Lloyd's iteration),
and so finds its clusters. But where points are few and channels many, a hundred of 3072, it is
cheaper to compute the points' inner products once: a centre is a weighting of points, and all
distances follow. The same points fall into the same clusters, whatever else is in the batch.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RUNS = 10
"""Starts, of which the one with the tightest clusters counts."""
ITERATIONS = 300
TOLERANCE = 1e-4
"""An iteration that moves the centres by less, in mean variances of a channel, is the last."""


class Draws(NamedTuple):
    """The random numbers of all runs; the same for every batch."""

    first: Tensor
    """int64 (runs,): the point that becomes the first centre."""
    rest: Tensor
    """float64 (runs, clusters - 1, trials) in 0…1: where to look for the others."""


def cluster(points: Tensor, clusters: int, *, seed: int = 0, runs: int = RUNS) -> Tensor:
    """Partition points into clusters.

    Args:
        points: (B, m, C), B separate sets.
        clusters: how many, at most m.
        seed: of the runs' starts.
        runs: how often to start.

    Returns:
        int64 (B, m): each point's cluster, 0 … clusters - 1. Which number a cluster has means
        nothing, and it may be empty where points coincide.

    Raises:
        ValueError: there are fewer points than clusters.
    """
    B, m, channels = points.shape
    if not 1 <= clusters <= m:
        raise ValueError(f"{m} points cannot be parted into {clusters} clusters")
    x = points.detach().double()
    x = x - x.mean(dim=1, keepdim=True)
    inner = x @ x.mT  # (B, m, m)
    least_shift = TOLERANCE * inner.diagonal(dim1=1, dim2=2).mean(dim=1) / channels
    draws = Draws(*(numbers.to(points.device) for numbers in _draw(m, clusters, seed, runs)))
    centres = _spread_centres(inner, draws)
    labels, inertia = _iterate(inner, centres, least_shift[:, None])
    return labels[torch.arange(B, device=points.device), inertia.argmin(dim=1)]


@cache
def _draw(m: int, clusters: int, seed: int, runs: int) -> Draws:
    rng = np.random.RandomState(seed)  # scikit-learn's generator
    trials = 2 + int(np.log(clusters))
    first, rest = [], []
    for _ in range(runs):
        first.append(rng.choice(m, p=np.full(m, 1 / m)))
        rest.append([rng.uniform(size=trials) for _ in range(clusters - 1)])
    shape = (runs, clusters - 1, trials)
    return Draws(torch.tensor(first), torch.from_numpy(np.array(rest).reshape(shape)))


def _spread_centres(inner: Tensor, draws: Draws) -> Tensor:
    """Choose points far from each other as centres, by greedy k-means++.

    Args:
        inner: (B, m, m), the points' inner products.
        draws: of R runs.

    Returns:
        Centres as weights of points, (B, R, clusters, m): each a single 1.
    """
    B, m, _ = inner.shape
    runs = len(draws.first)
    own = inner.diagonal(dim1=1, dim2=2)
    apart = (own[:, :, None] + own[:, None] - 2 * inner).clamp_min(0)  # squared distances
    chosen = [draws.first.expand(B, runs)]
    batch = torch.arange(B, device=inner.device)[:, None]
    nearest = apart[batch, chosen[0]]  # (B, R, m): to the nearest centre so far
    for numbers in draws.rest.unbind(dim=1):  # (R, trials)
        wanted = numbers * nearest.sum(dim=-1, keepdim=True)
        tried = torch.searchsorted(nearest.cumsum(dim=-1), wanted).clamp_max(m - 1)
        if_chosen = torch.minimum(nearest[:, :, None], apart[batch[..., None], tried])
        best = if_chosen.sum(dim=-1).argmin(dim=-1, keepdim=True)  # (B, R, 1)
        chosen.append(tried.gather(2, best)[..., 0])
        nearest = if_chosen.gather(2, best[..., None].expand(-1, -1, -1, m))[:, :, 0]
    return F.one_hot(torch.stack(chosen, dim=2), m).to(inner.dtype)


def _iterate(inner: Tensor, centres: Tensor, least_shift: Tensor) -> tuple[Tensor, Tensor]:
    """Move centres into the middle of what is nearest to them until they rest.

    Args:
        inner: (B, m, m).
        centres: (B, R, clusters, m).
        least_shift: (B, 1).

    Returns:
        Labels (B, R, m), and inertia (B, R): the sum of squared distances to the own centre.
    """
    B, runs, _, m = centres.shape
    labels = torch.full((B, runs, m), -1, device=inner.device)
    resting = torch.zeros((B, runs), dtype=torch.bool, device=inner.device)
    settled = resting.clone()  # labels repeated themselves: they are those of the centres
    for _ in range(ITERATIONS):
        found = _distances(inner, centres).argmin(dim=2)
        moved = _means(inner, centres, found)
        step = moved - centres
        shift = ((step @ inner[:, None]) * step).sum(dim=(2, 3))
        centres = torch.where(resting[..., None, None], centres, moved)
        repeated = (found == labels).all(dim=-1)
        labels = torch.where(resting[..., None], labels, found)
        settled |= ~resting & repeated
        resting = resting | repeated | (shift <= least_shift)
        if resting.all():
            break
    distances = _distances(inner, centres)
    labels = torch.where(settled[..., None], labels, distances.argmin(dim=2))
    own = inner.diagonal(dim1=1, dim2=2)[:, None]
    inertia = (distances.gather(2, labels[:, :, None])[:, :, 0] + own).sum(dim=-1)
    return labels, inertia


def _distances(inner: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances, less each point's own square: (B, R, clusters, m)."""
    B, runs, clusters, m = centres.shape
    along = (centres.view(B, runs * clusters, m) @ inner).view_as(centres)
    return (along * centres).sum(dim=-1, keepdim=True) - 2 * along


def _means(inner: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """Return the middle of each cluster as weights of points, (B, R, clusters, m).

    A centre that has lost all its points takes over the point that is farthest from its own.
    """
    members = F.one_hot(labels, centres.shape[2]).mT.to(inner.dtype)
    sizes = members.sum(dim=-1, keepdim=True)
    for b, run in (sizes[..., 0] == 0).any(dim=-1).nonzero().tolist():
        own = inner[b].diagonal()
        to_centre = _distances(inner[b : b + 1], centres[b : b + 1, run : run + 1])[0, 0]
        far = to_centre.gather(0, labels[b, run][None])[0] + own
        if far.max() <= 0:
            continue
        lost = (sizes[b, run, :, 0] == 0).nonzero()[:, 0]
        points = far.topk(len(lost)).indices
        members[b, run, :, points] = 0
        members[b, run, lost, points] = 1
        sizes[b, run] = members[b, run].sum(dim=-1, keepdim=True)
    return members / sizes.clamp_min(1)
