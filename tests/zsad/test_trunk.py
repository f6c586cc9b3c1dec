"""The block loop computes what open_clip's own blocks compute, plus hooks and taps."""

from __future__ import annotations

import torch
from tiny import tiny_detector

from zsad.trunk import attend, run_blocks

CLIP = tiny_detector().backbone.clip


def test_vision_blocks_equal_open_clip() -> None:
    tokens = torch.randn(2, 37, 64)
    ours, _ = run_blocks(CLIP.visual.transformer.resblocks, tokens)
    torch.testing.assert_close(ours, CLIP.visual.transformer(tokens), rtol=0, atol=2e-6)


def test_causal_blocks_equal_open_clip_with_its_mask() -> None:
    tokens = torch.randn(2, 77, 32)
    ours, _ = run_blocks(CLIP.transformer.resblocks, tokens, causal=True)
    theirs = CLIP.transformer(tokens, attn_mask=CLIP.attn_mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_taps_are_block_outputs_after_the_hook_counted_from_one() -> None:
    tokens, seen = torch.randn(1, 5, 64), []

    def after(number: int, x: torch.Tensor) -> torch.Tensor:
        seen.append(number)
        return x + number

    last, tapped = run_blocks(CLIP.visual.transformer.resblocks, tokens, after=after, taps=(1, 4))
    assert seen == [1, 2, 3, 4]
    assert len(tapped) == 2
    first = CLIP.visual.transformer.resblocks[0](tokens) + 1
    torch.testing.assert_close(tapped[0], first, rtol=0, atol=2e-6)
    assert torch.equal(tapped[1], last)


def test_attention_hook_takes_every_block_s_attention_in_order() -> None:
    tokens, seen = torch.randn(2, 5, 64), []

    def attention(number: int, weights: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(number)
        return attend(weights, x)

    blocks = CLIP.visual.transformer.resblocks
    ours, _ = run_blocks(blocks, tokens, attention=attention)
    assert seen == [1, 2, 3, 4]
    assert torch.equal(ours, run_blocks(blocks, tokens)[0])


def test_attention_by_values_lets_like_tokens_share() -> None:
    weights = CLIP.visual.transformer.resblocks[0].attn
    a, b = torch.randn(2, 64)
    out = attend(weights, torch.stack([a, a, b])[None], by_values=True)[0]
    torch.testing.assert_close(out[0], out[1])
    _, _, v = (torch.stack([a, a, b]) @ weights.in_proj_weight.T + weights.in_proj_bias).chunk(3, 1)
    heads = v.view(3, weights.num_heads, -1).transpose(0, 1)
    mixed = (heads @ heads.mT / heads.shape[-1] ** 0.5).softmax(-1) @ heads
    torch.testing.assert_close(out, weights.out_proj(mixed.transpose(0, 1).reshape(3, 64)))
