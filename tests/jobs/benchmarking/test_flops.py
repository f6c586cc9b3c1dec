"""How much arithmetic a slice takes, and the fastest matrix product."""

from __future__ import annotations

import pytest
import torch
from tiny import TINY_CLIP, tiny_adaclip, tiny_detector

from jobs.benchmarking import flops
from jobs.benchmarking.flops import count_flops, measure_matmul_peak
from jobs.benchmarking.pictures import draw_pictures

PICTURE = draw_pictures(1, 48)[0]
TOKENS, WIDTH = 37, TINY_CLIP["vision_cfg"]["width"]


def of_blocks(blocks: int, tokens: int) -> int:
    """Packed QKV 3 W², its way out W², an MLP of 8 W² a token; attention 2 N W a token; twice."""
    return 2 * blocks * tokens * (12 * WIDTH**2 + 2 * tokens * WIDTH)


def test_the_trunk_is_counted_as_on_paper_with_the_adapter_between_blocks() -> None:
    found = count_flops(tiny_detector(), PICTURE)
    assert found.trunk == of_blocks(4, TOKENS) + 2 * TOKENS * WIDTH**2


def test_a_backbone_knows_its_blocks_arithmetic_without_its_weights() -> None:
    backbone = tiny_detector().backbone_config
    assert backbone.slice_flops() == of_blocks(4, TOKENS)


def test_what_comes_before_and_after_is_counted_too() -> None:
    """Patches are embedded; two levels and the detection token are projected and compared."""
    found = count_flops(tiny_detector(), PICTURE)
    patches, embedding = TOKENS - 1, TINY_CLIP["embed_dim"]
    on_paper = 2 * patches * WIDTH * (3 * 8 * 8 + 3 * embedding)
    assert found.all - found.trunk == pytest.approx(on_paper, rel=0.01)


def test_two_passes_of_the_trunk_are_both_counted() -> None:
    found = count_flops(tiny_adaclip(), PICTURE)
    with_prompts = of_blocks(2, TOKENS + 3)
    assert found.trunk >= of_blocks(4, TOKENS) + with_prompts
    assert found.all > found.trunk


def test_the_peak_is_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([2.0, 1.0])
    monkeypatch.setattr(flops, "CPU_PRODUCTS", ((10, 20, 30), (20, 20, 30)))
    monkeypatch.setattr(flops, "_time_on_cpu", lambda a, b: next(seconds))
    peak = measure_matmul_peak(torch.float32, torch.device("cpu"))
    assert peak == 2 * 20 * 20 * 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_timed_in_the_type_that_is_asked_for(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops, "CPU_PRODUCTS", ((16, 16, 16),))
    seen = []

    def time(a: torch.Tensor, b: torch.Tensor) -> float:
        seen.append((a.dtype, b.dtype))
        return original(a, b)

    original = flops._time_on_cpu
    monkeypatch.setattr(flops, "_time_on_cpu", time)
    assert measure_matmul_peak(dtype, torch.device("cpu")) > 0
    assert seen == [(dtype, dtype)]
