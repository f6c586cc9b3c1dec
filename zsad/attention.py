"""Softmax attention, in the way that is fastest on the device at hand."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Do the same for some heads and rows after the other; not for training."""
    shape, tokens = q.shape, q.shape[-2]
    q, k, v = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
    heads, rows = torch.get_num_threads(), max(1, TILE // k.shape[-2])
    mixed = torch.empty_like(q)
    with torch.autocast(q.device.type, enabled=False):  # it would make the softmax one of float32
        for head in range(0, len(q), heads):
            some = slice(head, head + heads)
            keys, values = k[some].transpose(1, 2), v[some]
            for row in range(0, tokens, rows):
                those = slice(row, row + rows)
                scores = torch.bmm(q[some, those], keys)
                mixed[some, those] = torch.bmm(scores.softmax(dim=-1), values)
    return mixed.view(shape)


def _is_faster_in_tiles(q: Tensor) -> bool:
    """Tell whether PyTorch's own kernel is slow: it computes in bf16 on CPUs with AMX alone."""
    on_cpu = q.device.type == "cpu" and q.dtype is torch.bfloat16
    return on_cpu and not torch.is_grad_enabled() and not _has_amx()


@cache
def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
