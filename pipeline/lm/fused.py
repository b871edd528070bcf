"""LoRA layers, norms and gates as one autograd function each: the libraries' numbers without their temporaries.

PEFT computes base(x) + B(A(x))·s as separate operations, and each of them writes (and keeps for the backward pass) a
tensor of the layer's output size. Here the low-rank product is added into the base's output, and only x and the
rank-sized xAᵀ are kept. The Llama family's norm and gate keep their inputs only. Nothing here trains a base weight.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FAMILY = ("llama", "mistral", "qwen2", "qwen3")  # one layer design: RMS norm, rotary grouped attention, gated SiLU


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


class _RmsNorm(torch.autograd.Function):
    """y = w · x / √(mean(x²) + ε) in fp32, with w frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = (torch.linalg.vecdot(wide, wide) / x.shape[-1] + eps).rsqrt_().unsqueeze(-1)  # [...,1]
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        grad, wide = (grad * weight).float(), x.float()
        along = torch.linalg.vecdot(grad, wide).unsqueeze(-1) * scale.pow(3) / x.shape[-1]
        return grad.mul_(scale).addcmul_(wide, along, value=-1).to(x.dtype), None, None


class _GatedSilu(torch.autograd.Function):
    """y = silu(gate) · up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), nn.functional.silu(gate).mul_(grad)


def fuse_layers(trunk: Any) -> None:
    """Let the Llama family's norms and gated layers compute with one function each; other families stay as they are."""
    if trunk.config.model_type not in FAMILY or trunk.config.hidden_act != "silu":
        return
    for module in trunk.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm_forward, module)
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")):
            module.forward = partial(_gate_forward, module)


def _norm_forward(norm: Any, x: Tensor) -> Tensor:
    return _RmsNorm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-any-return, no-untyped-call]


def _gate_forward(mlp: Any, x: Tensor) -> Tensor:
    gated = _GatedSilu.apply(mlp.gate_proj(x), mlp.up_proj(x))  # type: ignore[no-untyped-call]
    return mlp.down_proj(gated)  # type: ignore[no-any-return]


def fuse_lora(layer: LoraLayer) -> None:
    """Let a LoRA layer compute with one function; layers of another kind (quantised, DoRA) stay PEFT's own."""
    if type(layer) is PeftLinear and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
        layer.forward = partial(_lora_forward, layer)  # type: ignore[method-assign]


def _lora_forward(layer: PeftLinear, x: Tensor) -> Tensor:
    base: Any = layer.base_layer
    if layer.disable_adapters:
        return base(x)  # type: ignore[no-any-return]
    (name,) = layer.active_adapters
    dropout = layer.lora_dropout[name]
    if dropout.training and not isinstance(dropout, nn.Identity):
        return PeftLinear.forward(layer, x)  # type: ignore[no-any-return]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _LoraLinear.apply(x, base.weight, base.bias, down, up, layer.scaling[name])  # type: ignore[no-any-return, no-untyped-call]
