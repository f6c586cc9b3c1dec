"""The block loop computes what open_clip's own blocks compute, plus hooks and taps."""

from __future__ import annotations

import torch
from tiny import tiny_detector

from zsad.trunk import run_blocks

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
