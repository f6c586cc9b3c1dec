"""A detector's matrices laid out for oneDNN: the fastest products that PyTorch has on a CPU.

PyTorch gives float32 products to MKL, which is slow on processors that are not Intel's, and lays
the weights of bf16 products out again in every call. Here that happens once, and the activation of
the hidden layer is part of the product, as in what `torch.compile` makes. Packed modules only
infer: they have no gradient and no `state_dict`, and do not leave the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

QUICK_GELU_SLOPE = 1.702
"""CLIP's activation is x · sigmoid(1.702 x)."""


class PackedLinear(nn.Module):
    """A linear layer, (…, C) → (…, D), and the activation behind it."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dtype: torch.dtype,
        rows: int,
        activation: str = "none",
    ) -> None:
        """Lay out a layer.

        Args:
            weight: (D, C).
            bias: (D,).
            dtype: of input, product and output; sums are float32.
            rows: how many inputs there will be at once, about.
            activation: oneDNN's name of it, as PyTorch spells it: "none", "gelu" or "swish".
        """
        super().__init__()
        self.dtype, self.activation = dtype, activation
        weight = weight.detach().to(dtype).contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self.bias = None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return product(x.to(self.dtype), self.weight, self.bias, self.activation)


class PackedAttention(nn.Module):
    """The weights of an `nn.MultiheadAttention`, for `zsad.trunk.attend`."""

    def __init__(self, attention: nn.MultiheadAttention, *, dtype: torch.dtype, rows: int) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.in_proj = PackedLinear(
            attention.in_proj_weight, attention.in_proj_bias, dtype=dtype, rows=rows
        )
        self.out_proj = _packed(attention.out_proj, dtype, rows)


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """Return activation(x weightᵀ + bias), (…, C) → (…, D), of a weight (D, C), packed or plain."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return found


def can_pack() -> bool:
    """Tell whether this PyTorch has oneDNN, and its operators by the names known here."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return bool(torch.backends.mkldnn.is_available()) and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def pack_blocks(blocks: Any, dtype: torch.dtype, *, rows: int) -> None:
    """Pack open_clip's residual attention blocks, in place.

    Args:
        blocks: of one tower.
        dtype: float32 or bfloat16.
        rows: how many tokens there will be at once, about.
    """
    for block in blocks:
        block.attn = PackedAttention(block.attn, dtype=dtype, rows=rows)
        _pack_mlp(block.mlp, dtype, rows)


def pack_layers(module: nn.Module, *, rows: int) -> None:
    """Pack all linear layers that a module still has, in float32 and in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, _packed(child, torch.float32, rows))


def _pack_mlp(mlp: Any, dtype: torch.dtype, rows: int) -> None:
    """Pack open_clip's c_fc, gelu, c_proj, the activation with the first."""
    first, activation, last = mlp.c_fc, mlp.gelu, mlp.c_proj
    slope, name = 1.0, None
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        name = "gelu"
    elif type(activation).__name__ == "QuickGELU":
        # s x · sigmoid(s x) is oneDNN's swish of s x, and the slope comes out again behind it.
        slope, name = QUICK_GELU_SLOPE, "swish"
    if name is not None:
        mlp.gelu = nn.Identity()
    mlp.c_fc = PackedLinear(
        slope * first.weight,
        slope * first.bias,
        dtype=dtype,
        rows=rows,
        activation=name or "none",
    )
    mlp.c_proj = PackedLinear(last.weight / slope, last.bias, dtype=dtype, rows=rows)


def _packed(layer: nn.Linear, dtype: torch.dtype, rows: int) -> PackedLinear:
    return PackedLinear(layer.weight, layer.bias, dtype=dtype, rows=rows)
