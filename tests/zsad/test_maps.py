"""Blur and interpolation of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from zsad.maps import gaussian_blur, upsample


@pytest.mark.parametrize(("size", "sigma"), [(7, 1.0), (9, 1.5)])
def test_blur_equals_scipy_with_the_same_reach_and_mirrored_border(size: int, sigma: float) -> None:
    maps = torch.randn(3, 11, 8, dtype=torch.float64)
    expected = [
        ndimage.gaussian_filter(m, sigma, mode="mirror", radius=size // 2) for m in maps.numpy()
    ]
    np.testing.assert_allclose(gaussian_blur(maps, size=size, sigma=sigma), expected, atol=1e-12)


def test_blur_keeps_a_constant() -> None:
    maps = torch.full((1, 6, 6), 3.5)
    torch.testing.assert_close(gaussian_blur(maps, size=9, sigma=1.5), maps)


def test_grid_too_small_for_the_blur_is_an_error_that_gives_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"at least 5×5.*is 4×4"):
        gaussian_blur(torch.zeros(1, 4, 4), size=9, sigma=1.5)


def test_upsampling_puts_corners_on_corners_and_is_linear_between() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    large = upsample(maps, (3, 5))[0]
    torch.testing.assert_close(large[0], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(large[:, 0], torch.tensor([0.0, 1.0, 2.0]))


@pytest.mark.parametrize("grid", [16, 37])
def test_a_map_is_rendered_alike_alone_and_in_any_batch(grid: int) -> None:
    """To the last bit, or a scan's maps would depend on how many slices are rendered at once."""
    maps = torch.randn(9, grid, grid, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)

    def render(part: torch.Tensor) -> torch.Tensor:
        return upsample(gaussian_blur(part, size=9, sigma=1.5), (100, 130))

    together = render(maps)
    for size in (1, 2, 4):
        assert torch.equal(torch.cat([render(part) for part in maps.split(size)]), together)
