"""LoRA layers as one autograd function each: the same numbers as PEFT's, without its temporaries.

PEFT computes base(x) + B(A(x))·s as separate operations, and each of them writes (and keeps for the backward pass) a
tensor of the layer's output size. Here the low-rank product is added into the base's output, and only x and the
rank-sized xAᵀ are kept.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _LoraLinear(torch.autograd.Function):
    """y = xWᵀ + b + s·(xAᵀ)Bᵀ with W and b frozen; gradient reaches x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [n,in]
        low = rows @ down.to(x.dtype).T  # [n,r]
        out = nn.functional.linear(rows, weight, bias).addmm_(low, up.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        rows, low, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])  # [n,out]
        grad_low = (grad @ up.to(grad.dtype)).mul_(ctx.scaling)  # [n,r]
        grad_x = grad_down = grad_up = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_low, down.to(grad.dtype)).view(ctx.shape)
        if ctx.needs_input_grad[3]:
            grad_down = (grad_low.T @ rows).to(down.dtype)
        if ctx.needs_input_grad[4]:
            grad_up = (grad.T @ low).mul_(ctx.scaling).to(up.dtype)
        return grad_x, None, None, grad_down, grad_up, None


def fuse(layer: LoraLayer) -> None:
    """Let a LoRA layer compute with one function; layers of another kind (quantised, DoRA) stay PEFT's own."""
    if type(layer) is PeftLinear and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: PeftLinear, x: Tensor) -> Tensor:
    base: Any = layer.base_layer
    if layer.disable_adapters:
        return base(x)  # type: ignore[no-any-return]
    (name,) = layer.active_adapters
    dropout = layer.lora_dropout[name]
    if dropout.training and not isinstance(dropout, nn.Identity):
        return PeftLinear.forward(layer, x)  # type: ignore[no-any-return]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _LoraLinear.apply(x, base.weight, base.bias, down, up, layer.scaling[name])  # type: ignore[no-any-return, no-untyped-call]
