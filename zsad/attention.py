"""Softmax attention, in the way that is fastest on the device at hand."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.packing import can_pack, product

TILE = 1 << 20
"""Scores of a head that are there at once: in bf16 they stay in the cache of a core."""


def mix(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Mix values by how well queries and keys agree: softmax(q kᵀ / √d) v.

    Args:
        q: (B, heads, N, d).
        k: (B, heads, M, d).
        v: (B, heads, M, d).
        causal: whether a query sees only the keys up to its own place; then M = N.
        mask: bool (N, M): which keys a query sees.

    Returns:
        (B, heads, N, d).
    """
    if mask is None and not causal and _is_faster_in_tiles(q):
        return mix_in_tiles(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def mix_in_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Do the same by oneDNN for some rows of a head after the other; not for training."""
    shape, keys = q.shape, k.shape[-2]
    # oneDNN has fast kernels for rows that lie side by side alone.
    q, k, v = (
        x.flatten(0, 1).contiguous() for x in (q * q.shape[-1] ** -0.5, k, v.transpose(-1, -2))
    )
    mixed, rows = torch.empty_like(q), max(1, TILE // keys)
    for head in range(len(q)):
        for row in range(0, q.shape[1], rows):
            some = slice(row, row + rows)
            weights = product(q[head, some], k[head]).softmax(dim=-1)
            mixed[head, some] = product(weights, v[head])
    return mixed.view(shape)


def _is_faster_in_tiles(q: Tensor) -> bool:
    """Tell whether PyTorch's own kernel is slow: it is made for AMX, and without it for MKL."""
    on_cpu = q.device.type == "cpu" and not torch.is_grad_enabled()
    return on_cpu and can_pack() and not _has_amx()


@cache
def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
