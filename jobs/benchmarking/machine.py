"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    *("torch", "open_clip_torch", "numpy", "scipy", "scikit-learn"),
    *("ray", "pydicom", "imagecodecs", "nibabel", "pillow"),
)
BF16_CAPABILITIES = ("amx_bf16", "avx512_bf16")
"""CPUs without any compute in bf16 by converting to fp32 and back."""


def describe_machine() -> dict[str, Any]:
    """Return the processor, the threads and the packages that are used."""
    cpu = _cpu_info()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": computes_in_bf16(),
        "gpu": gpu,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
    }


def _version(package: str) -> str | None:
    """Return a package's version; None without the package, which not every benchmark needs."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def computes_in_bf16() -> bool:
    """Tell whether the GPU, or without one the CPU, multiplies bf16 numbers as they are."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BF16_CAPABILITIES)


def _cpu_info() -> dict[str, str]:
    """Return what Linux says of the first core; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
