"""Products of matrices on a CPU: torch's own, or oneDNN's where those leave half of the processor idle.

torch multiplies fp32 matrices with MKL, which takes its AVX-512 kernels on Intel's processors only; oneDNN, in the same
torch, takes them wherever they are. It prepares a kernel for each combination of sizes, which holds half a megabyte; so
it is asked for numbers of rows that come again, and keeps few kernels.
"""

import os
import platform
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

# Numbers of rows are made up to multiples of this where oneDNN multiplies; up to FEW, as in decoding, all come again.
ROWS, FEW = 32, 64
# Kernels that are kept, for a thousand: those of one minibatch are some thirty. Read when oneDNN is first asked.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# (x [n,in], W [out,in], b [out] or None, plus [n,out] or None, s) → xWᵀ + b, or plus + s·xWᵀ in plus's place.
Product = Callable[..., Tensor]


def half_on_cpu(x: Tensor) -> bool:
    """Whether a tensor is in half precision on a CPU, where what isn't a large product is better done in fp32."""
    return x.device.type == "cpu" and x.dtype != torch.float32


def whole_rows(weight: Tensor) -> int:
    """The number of which rows that meet `weight` should be a multiple: ROWS where oneDNN multiplies, else 1."""
    return ROWS if half_on_cpu(weight) or _by_onednn(weight) else 1


def product_for(x: Tensor) -> Product:
    """The faster product for rows x [n,in] and for all that is multiplied with as many rows."""
    return _onednn if _by_onednn(x) and (len(x) <= FEW or len(x) % ROWS == 0) else _torch


def product_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """xWᵀ into `out` [n,out], which may be some columns of a wider matrix."""
    if product_for(x) is _onednn:
        out.copy_(_onednn(x, weight))
    else:
        torch.mm(x, weight.T, out=out)


def packed(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x → xWᵀ + b, with W laid out for few rows where oneDNN can (fp32 on a CPU)."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return lambda x: linear(x, weight, bias)
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)  # made for so many; others work too
    return lambda x: _onednn(x.float(), blocked, bias)


def hasten(model: Any) -> None:
    """Let the plain linear layers of a model take the faster product, whatever they learn."""
    if not idle_avx512():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_linear_forward, module)  # type: ignore[method-assign]


def _linear_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    if not _by_onednn(x):
        return linear(x, layer.weight, layer.bias)
    return _Linear.apply(x, layer.weight, layer.bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    """y = xWᵀ + b by oneDNN, with every gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = _filled(x)
        ctx.save_for_backward(rows, weight)
        ctx.shape = x.shape
        count = x.numel() // x.shape[-1]
        return _onednn(rows, weight, bias)[:count].view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        grad, count = _filled(out), out.numel() // out.shape[-1]
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            _onednn(grad, weight.T)[:count].view(ctx.shape) if to_x else None,
            _onednn(grad.T, rows.T) if to_weight else None,
            grad.sum(0) if to_bias else None,
        )


def _filled(x: Tensor) -> Tensor:
    """[…,in] → rows [n,in], with rows of zeros up to a multiple of ROWS; a view of x where it has that many."""
    rows = x.reshape(-1, x.shape[-1])
    return pad(rows, (0, 0, 0, -len(rows) % ROWS)) if len(rows) % ROWS else rows


def _torch(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, plus: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    return linear(x, weight, bias) if plus is None else plus.addmm_(x, weight.T, alpha=scale)


def _onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, plus: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    multiply = torch.ops.mkldnn._linear_pointwise
    if plus is None:
        return multiply(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return multiply.binary(x if scale == 1.0 else x * scale, plus, weight, None, "add")  # type: ignore[no-any-return]


def _by_onednn(x: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return plain and idle_avx512()


@cache
def idle_avx512() -> bool:
    """Whether this processor has AVX-512 that MKL won't use."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    return torch.cpu._is_avx512_supported() and not _intel()


def _intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "AuthenticAMD" not in platform.processor()
