"""The one loop over transformer blocks that every method and both towers run through.

A method changes CLIP between blocks, or a block's attention; it says what to do there with a hook,
and which block outputs it wants to see with taps. Blocks are counted from 1, as the papers do.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.attention import mix
from zsad.packing import PackedAttention

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called with a block's number and its output (B, N, W); returns what the next block sees."""

Attention = Callable[[int, Any, Tensor], Tensor]
"""Called with a block's number, its `nn.MultiheadAttention` and that one's input (B, N, W), in
place of the attention; returns (B, N, W)."""


def run_blocks(
    blocks: Iterable[Any],
    tokens: Tensor,
    *,
    causal: bool = False,
    attention: Attention | None = None,
    after: AfterBlock | None = None,
    taps: Container[int] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Run tokens through pre-norm transformer blocks.

    Args:
        blocks: open_clip's residual attention blocks.
        tokens: (B, N, W).
        causal: whether a token sees only itself and what comes before it (the text tower).
        attention: takes the place of every block's attention, `causal` then means nothing.
        after: applied to the output of each block.
        taps: the blocks whose output, after the hook, is kept.

    Returns:
        The last output (B, N, W), and the tapped outputs in order.
    """
    tapped = []
    for number, block in enumerate(blocks, start=1):
        normed = block.ln_1(tokens)
        if attention is None:
            mixed = attend(block.attn, normed, causal=causal)
        else:
            mixed = attention(number, block.attn, normed)
        tokens = tokens + block.ls_1(mixed)
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        if after is not None:
            with full_precision(tokens):
                tokens = after(number, tokens)
        if number in taps:
            tapped.append(tokens)
    return tokens, tapped


def full_precision(like: Tensor) -> torch.autocast:
    """Return a context in which a caller's autocast to bf16 is off, on the device of a tensor.

    The blocks' matrix products are nearly all of the work and bear bf16's 8 bits. What comes
    before and after them costs little, and decides: a difference of two cosines, times 100, is
    made of the bits that bf16 drops.
    """
    return torch.autocast(like.device.type, enabled=False)


def attend(
    attention: Any, tokens: Tensor, *, causal: bool = False, by_values: bool = False
) -> Tensor:
    """Self-attention with the weights of an `nn.MultiheadAttention`: (B, N, W) → (B, N, W).

    Args:
        attention: the weights, as they are or packed.
        tokens: (B, N, W).
        causal: whether a token sees only itself and what comes before it.
        by_values: whether values are compared with values, instead of queries with keys: a token
            then looks at those that are like it (V-V attention of CLIP Surgery, arXiv 2304.05653).
    """
    q, k, v = ask(attention, tokens)
    if by_values:
        q = k = v
    return answer(attention, q, k, v, causal=causal)


def ask(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of tokens (B, N, W), each (B, heads, N, W / heads)."""
    B, N, _ = tokens.shape
    if isinstance(attention, PackedAttention):
        projected = attention.in_proj(tokens)
    else:
        projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = projected.view(B, N, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return q, k, v


def answer(
    attention: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Mix values (B, heads, M, d) for N queries, and project: (B, N, W).

    Args:
        attention: the weights.
        q: (B, heads, N, d).
        k: (B, heads, M, d).
        v: (B, heads, M, d).
        causal: whether a query sees only the keys up to its own place; then M = N.
        mask: bool (N, M): which keys a query sees.
    """
    mixed = mix(q, k, v, causal=causal, mask=mask)
    projected: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return projected
