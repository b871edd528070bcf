"""LoRA layers, attention, norms and gates as few autograd functions: the libraries' numbers without their temporaries.

PEFT computes base(x) + B(A(x))·s as separate operations, and each of them writes (and keeps for the backward pass) a
tensor of the layer's output size. Here the low-rank product is added into the base's output, only x and the rank-sized
xAᵀ are kept, and layers that read the same x share what they do with it. The Llama family's rotation, norm and gate
keep their inputs only. Nothing here trains a base weight.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.lm.packing import NAME, attention
from pipeline.lm.products import product_for

FAMILY = ("llama", "mistral", "qwen2", "qwen3")  # one layer design: RMS norm, rotary grouped attention, gated SiLU


class _Projections(torch.autograd.Function):
    """y_i = xW_iᵀ + b_i + s_i·(xA_iᵀ)B_iᵀ for several layers, W and b frozen; gradient reaches x, A and B.

    The arguments after the scalings are weight, bias, A and B of each layer; A and B are None without an adapter.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scalings: tuple[float, ...], *parts: Tensor | None) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])  # [n,in]
        layers = list(zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], scalings, strict=True))
        downs = [down.to(x.dtype) for _, _, down, _, _ in layers if down is not None]
        joined = downs[0] if len(downs) == 1 else torch.cat(downs) if downs else None  # [R,in]
        times = product_for(rows)
        low = None if joined is None else times(rows, joined)  # [n,R], all layers' xAᵀ side by side
        outs, ups, start = [], [], 0
        for weight, bias, _, up, scaling in layers:
            assert weight is not None
            out = times(rows, weight, bias)
            if up is not None:
                assert low is not None
                end = start + up.shape[1]
                out = times(low[:, start:end], up.to(x.dtype), plus=out, scale=scaling)
                start = end
            outs.append(out.view(*x.shape[:-1], -1))
            ups.append(up)
        ctx.save_for_backward(rows, low, joined, *parts[::4], *ups)
        ctx.scalings, ctx.shape, ctx.times = scalings, x.shape, times
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        count, times = len(grads), ctx.times
        rows, low, joined, *saved = ctx.saved_tensors
        weights, ups = saved[:count], saved[count:]
        grad_low = None if low is None else torch.empty_like(low)
        grad_x: Tensor | None = None
        grad_parts: list[Tensor | None] = [None] * (4 * count)
        start = 0
        for index, (raw, weight, up, scaling) in enumerate(zip(grads, weights, ups, ctx.scalings, strict=True)):
            grad = raw.reshape(len(rows), -1)  # [n,out]
            if ctx.needs_input_grad[0]:
                grad_x = times(grad, weight.T, plus=grad_x)
            if up is None:
                continue
            own = slice(start, start + up.shape[1])
            start = own.stop
            torch.mul(times(grad, up.to(grad.dtype).T), scaling, out=grad_low[:, own])  # type: ignore[index]
            if ctx.needs_input_grad[2 + 4 * index + 3]:
                grad_parts[4 * index + 3] = times(low[:, own].T, grad.T).mul_(scaling).T.to(up.dtype)
        if grad_low is not None:
            if grad_x is not None:
                grad_x = times(grad_low, joined.T, plus=grad_x)
            adapted = [index for index, up in enumerate(ups) if up is not None]
            if any(ctx.needs_input_grad[2 + 4 * index + 2] for index in adapted):
                sizes = [ups[index].shape[1] for index in adapted]
                for index, part in zip(adapted, times(grad_low.T, rows.T).split(sizes), strict=True):
                    grad_parts[4 * index + 2] = part.to(ups[index].dtype)
        return (None if grad_x is None else grad_x.view(ctx.shape), None, *grad_parts)


class _Rotation(torch.autograd.Function):
    """Rotary position embedding of x [...,H,d] by angles of cosines and sines [...,1,d/2]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1.0), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    (a, b), out = x.chunk(2, dim=-1), torch.empty_like(x)
    first, second = out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-direction)
    torch.mul(b, cos, out=second).addcmul_(a, sin, value=direction)
    return out


class _RmsNorm(torch.autograd.Function):
    """y = w · x / √(mean(x²) + ε) in fp32, then rounded to `dtype`, with w frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.float()
        scale = (torch.linalg.vecdot(wide, wide) / x.shape[-1] + eps).rsqrt_().unsqueeze(-1)  # [...,1]
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        grad, wide = (grad * weight).float(), x.float()
        along = torch.linalg.vecdot(grad, wide).unsqueeze(-1) * scale.pow(3) / x.shape[-1]
        return grad.mul_(scale).addcmul_(wide, along, value=-1).to(x.dtype), None, None, None


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


def in_family(config: Any) -> bool:
    """Whether a model has the layers that are known here."""
    return config.model_type in FAMILY and config.hidden_act == "silu"


def fuse_layers(trunk: Any) -> None:
    """Let the Llama family's layers compute with the functions above; other families stay as they are."""
    if not in_family(trunk.config):
        return
    for module in trunk.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm_forward, module)
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")):
            module.forward = partial(_gate_forward, module)
        elif all(hasattr(module, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")):
            module.forward = partial(_attention_forward, module)


def widen(base: Any) -> None:
    """Carry the residual stream of a base with fused layers in fp32 where its weights are in half precision.

    Products stay as they are; what they give is added up, layer upon layer, without rounding the sum to eight bits
    each time. The final hidden states are fp32, too.
    """
    trunk, head = base.base_model, base.get_output_embeddings()
    trunk.embed_tokens.register_forward_hook(lambda module, inputs, out: out.float())
    trunk.norm.forward = partial(_norm_forward, trunk.norm, dtype=torch.float32)
    head.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.weight.dtype),))


def _norm_forward(norm: Any, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    kind = norm.weight.dtype if dtype is None else dtype
    return _RmsNorm.apply(x, norm.weight, norm.variance_epsilon, kind)  # type: ignore[no-any-return, no-untyped-call]


def _gate_forward(mlp: Any, x: Tensor) -> Tensor:
    gated = _GatedSilu.apply(*projections(x, mlp.gate_proj, mlp.up_proj))  # type: ignore[no-untyped-call]
    return mlp.down_proj(gated)  # type: ignore[no-any-return]


def _attention_forward(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if module.config._attn_implementation != NAME:
        inputs = (hidden_states, position_embeddings, attention_mask, past_key_values)
        return type(module).forward(module, *inputs, **options)  # type: ignore[no-any-return]
    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    projected = projections(hidden_states, module.q_proj, module.k_proj, module.v_proj)
    query, key, value = (part.view(shape) for part in projected)  # [b,L,H,d]
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    # Both halves of a head turn by the same angles.
    cos, sin = (part[..., : module.head_dim // 2].unsqueeze(-2) for part in position_embeddings)
    query, key = (_Rotation.apply(part, cos, sin) for part in (query, key))  # type: ignore[no-untyped-call]
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    out, _ = attention(module, query, key, value, attention_mask, scaling=module.scaling, **options)
    return module.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), None


def fuse_lora(layer: LoraLayer) -> None:
    """Let a LoRA layer compute with one function; layers of another kind (quantised, DoRA) stay PEFT's own."""
    if _fusable(layer):
        layer.forward = partial(_lora_forward, layer)  # type: ignore[attr-defined]


def _lora_forward(layer: LoraLayer, x: Tensor) -> Tensor:
    return projections(x, layer)[0]


def projections(x: Tensor, *layers: Any) -> tuple[Tensor, ...]:
    """What each of some linear layers makes of the same x; all at once where their kinds are known."""
    plans = [_plan(layer) for layer in layers]
    if any(plan is None for plan in plans):
        return tuple(PeftLinear.forward(layer, x) if _fusable(layer) else layer(x) for layer in layers)
    scalings = tuple(plan[-1] for plan in plans if plan)
    parts = [part for plan in plans if plan for part in plan[:-1]]
    return _Projections.apply(x, scalings, *parts)  # type: ignore[no-any-return, no-untyped-call]


def _fusable(layer: Any) -> bool:
    return type(layer) is PeftLinear and type(layer.base_layer) is nn.Linear and not layer.lora_variant


def _plan(layer: Any) -> tuple[Any, ...] | None:
    """Weight and bias, A, B and s of the acting adapter (None without one); None for a layer of another kind."""
    if type(layer) is nn.Linear:
        return layer.weight, layer.bias, None, None, 0.0
    if not _fusable(layer):
        return None
    base = layer.base_layer
    if layer.disable_adapters:
        return base.weight, base.bias, None, None, 0.0
    (name,) = layer.active_adapters
    dropout = layer.lora_dropout[name]
    if dropout.training and not isinstance(dropout, nn.Identity):
        return None
    return base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
