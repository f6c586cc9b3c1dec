"""Attention in tiles is attention, whatever the sizes, and is used where it is faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from zsad import attention
from zsad.attention import mix, mix_in_tiles

SIZES = st.integers(1, 9)


@given(batch=SIZES, heads=SIZES, queries=SIZES, keys=SIZES, tile=st.integers(1, 40))
def test_tiles_of_any_size_give_what_pytorch_gives(
    batch: int, heads: int, queries: int, keys: int, tile: int
) -> None:
    q = torch.randn(batch, heads, queries, 8)
    k, v = torch.randn(2, batch, heads, keys, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILE", tile)
        found = mix_in_tiles(q, k, v)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("amx", "grad", "tiled"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_tiles_are_for_cpus_without_amx_and_not_for_training(
    monkeypatch: pytest.MonkeyPatch, amx: bool, grad: bool, tiled: bool
) -> None:
    used: list[bool] = []
    monkeypatch.setattr(attention, "_has_amx", lambda: amx)
    monkeypatch.setattr(attention, "mix_in_tiles", lambda q, k, v: used.append(True))
    q = torch.randn(1, 2, 5, 8)
    with torch.set_grad_enabled(bool(grad)):
        mix(q, q, q)
        mix(q, q, q, causal=True)
        mix(*[q.bfloat16()] * 3)
    assert len(used) == 2 * tiled


def test_rounding_is_that_of_bf16() -> None:
    q, k, v = torch.randn(3, 1, 4, 200, 64)
    exact = F.scaled_dot_product_attention(q, k, v)
    tiled = mix_in_tiles(q.bfloat16(), k.bfloat16(), v.bfloat16())
    usual = F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    error, usual_error = ((x.float() - exact).abs().mean() for x in (tiled, usual))
    assert error < 2 * usual_error
