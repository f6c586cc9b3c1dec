"""K-means finds what scikit-learn finds, and the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from zsad.kmeans import cluster


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def rounding_decides(points: np.ndarray, clusters: int, *, seed: int, runs: int) -> bool:
    """Tell whether two candidates for a start of greedy k-means++ are equally good.

    Two points are, if each would draw only the other one to itself.
    """
    apart = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    rng = np.random.RandomState(seed)
    for _ in range(runs):
        nearest = apart[rng.choice(len(points), p=np.full(len(points), 1 / len(points)))]
        for _ in range(clusters - 1):
            wanted = rng.uniform(size=2 + int(np.log(clusters))) * nearest.sum()
            tried = np.unique(np.searchsorted(nearest.cumsum(), wanted).clip(0, len(points) - 1))
            if_chosen = np.minimum(nearest, apart[tried])
            left = if_chosen.sum(axis=1)
            if (np.diff(np.sort(left)[:2]) < 1e-9 * nearest.sum()).any():
                return True
            nearest = if_chosen[left.argmin()]
    return False


def inertia(points: torch.Tensor, labels: torch.Tensor) -> float:
    parts = [points[labels == label] for label in labels.unique()]
    return sum(float(((part - part.mean(dim=0)) ** 2).sum()) for part in parts)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    m=st.integers(2, 40),
    channels=st.integers(1, 30),
    clusters=st.integers(1, 12),
    runs=st.sampled_from([1, 10]),
)
def test_finds_the_clusters_of_scikit_learn(
    seed: int, m: int, channels: int, clusters: int, runs: int
) -> None:
    clusters = min(clusters, m)
    points = np.random.default_rng(seed).normal(size=(m, channels)).astype(np.float32)
    assume(not rounding_decides(points.astype(np.float64), clusters, seed=seed, runs=runs))
    found = cluster(torch.from_numpy(points)[None], clusters, seed=seed, runs=runs)[0].numpy()
    judge = KMeans(clusters, n_init=runs, random_state=seed).fit(points.astype(np.float64))
    assert same_partition(found, judge.labels_)


def test_a_case_in_which_rounding_chooses_the_start_is_known_as_one() -> None:
    """The eighth start may be point 18 or point 4: each would draw only the other one to itself."""
    points = np.random.default_rng(778).normal(size=(26, 12)).astype(np.float32).astype(np.float64)
    assert rounding_decides(points, 9, seed=778, runs=1)
    assert not rounding_decides(points, 7, seed=778, runs=1)


@pytest.mark.parametrize("seed", range(5))
def test_coinciding_points_stay_together(seed: int) -> None:
    """Ties are broken by rounding, so only what must hold for every answer is asked."""
    few = np.random.default_rng(seed).normal(size=(4, 3))
    points = torch.from_numpy(np.repeat(few, 5, axis=0))[None]
    labels = cluster(points, 7)[0]
    assert inertia(points[0], labels) == pytest.approx(0, abs=1e-18)
    assert cluster(torch.ones(1, 6, 2), 3).shape == (1, 6)


def test_a_batch_changes_nothing() -> None:
    points = torch.randn(6, 25, 16, generator=torch.Generator().manual_seed(0))
    together = cluster(points, 5)
    for alone, labels in zip(points, together, strict=True):
        assert torch.equal(cluster(alone[None], 5)[0], labels)


def test_clusters_have_no_gradient_and_the_seed_decides() -> None:
    points = torch.randn(1, 60, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    first = cluster(points, 8, runs=1)
    assert not first.requires_grad
    assert torch.equal(first, cluster(points, 8, runs=1))
    others = [cluster(points, 8, runs=1, seed=seed) for seed in range(1, 6)]
    assert any(not same_partition(first[0].numpy(), other[0].numpy()) for other in others)


def test_more_clusters_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points cannot be parted into 4 clusters"):
        cluster(torch.zeros(1, 3, 2), 4)
