"""How much arithmetic a slice takes, and how much of it a device can do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmarking.pictures import Picture
from jobs.benchmarking.trunk_hooks import watch_trunk
from zsad.packing import PackedLinear, can_pack
from zsad.preprocess import squash

CPU_PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (5480, 1024, 4096), (5480, 4096, 1024))
"""Matrix products (M, K, N): large square ones, and those of four slices of ViT-L at 518 px."""
GPU_PRODUCTS = (
    *((8192, 8192, 8192), (16384, 8192, 8192)),
    *((16 * 1370, 1024, 4096), (16 * 1370, 4096, 1024), (64 * 1370, 1024, 4096)),
)
TRIES = 3
GPU_TRIES = 20


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of a slice; a multiplication and an addition are two."""

    all: int
    trunk: int
    """Of the vision tower's blocks."""


def count_flops(detector: Any, picture: Picture) -> Flops:
    """Count those of a detector for one slice; what is read once a class is not among them.

    Args:
        detector: in float32, without gradients and not packed.
        picture: uint8 (H, W, 3).
    """
    weight = next(detector.parameters())
    pixels = torch.tensor(squash(picture.pixels, detector.backbone_config.image_size))[None]
    texts = list(detector.encode_text([picture.class_name]))
    counter = FlopCounterMode(display=False)
    # As in training, and with attention as plain products: other kernels are not all counted.
    with (
        torch.enable_grad(),
        watch_trunk(detector, counter.get_total_flops) as passes,
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        detector(pixels.to(weight.device), texts)
    trunk = sum(after - before for before, after in passes)
    return Flops(all=counter.get_total_flops(), trunk=trunk)


def measure_matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of the fastest of several large matrix products, with torch's threads."""
    products = GPU_PRODUCTS if device.type == "cuda" else CPU_PRODUCTS
    return max(_flops_of_product(*sizes, dtype, device) for sizes in products)


def _flops_of_product(M: int, K: int, N: int, dtype: torch.dtype, device: torch.device) -> float:
    a = torch.randn(M, K, device=device).to(dtype)
    b = torch.randn(N, K, device=device).to(dtype)
    F.linear(a, b)
    seconds = _time_on_gpu(a, b) if device.type == "cuda" else _time_on_cpu(a, b)
    return 2 * M * K * N / seconds


def _time_on_cpu(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the seconds of the fastest of some products: by PyTorch's usual way, or packed."""
    ways = [partial(F.linear, a, b)]
    if can_pack():
        ways.append(partial(PackedLinear(b, None, dtype=b.dtype, rows=len(a)), a))
    seconds = []
    with torch.inference_mode():
        for multiply in ways * (1 + TRIES):
            began = time.perf_counter()
            multiply()
            seconds.append(time.perf_counter() - began)
    return min(seconds)


def _time_on_gpu(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the seconds of the fastest of some products; all are queued before any is timed."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(GPU_TRIES + 1)]
    events[0].record()
    for event in events[1:]:
        F.linear(a, b)
        event.record()
    torch.cuda.synchronize()
    took = [float(before.elapsed_time(after)) for before, after in pairwise(events)]
    return min(took) / 1000
