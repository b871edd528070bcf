"""Log-probabilities of given tokens, without ever holding [N,V] logits.

For hidden states h [N,D] and the head's weight W [V,D] and bias b [V] at temperature τ: logits z = (hWᵀ + b)/τ,
log π(a) = z_a − logsumexp(z). Each token's log-probability depends on its own hidden state only, with
∂log π(a)/∂h = (W_a − πW)/τ. So the forward pass walks over chunks of tokens, keeps that one vector per token when a
gradient will be wanted, and drops the logits: the same multiplications as usual, no logits kept or rebuilt. Only a head
that learns itself has them rebuilt in the backward pass: ∂log π(a)/∂W = (1_a − π)hᵀ/τ, ∂log π(a)/∂b = (1_a − π)/τ.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

from pipeline.lm.products import product_for, product_into, whole_rows

# Tokens; 128 × 49k logits in fp32 are 25 MB, below the size that glibc returns to the system every time. A GPU wants
# more of them at once: 200 MB a temporary.
CHUNK, GPU_CHUNK = 128, 1024
BLOCK = 2048  # words of the vocabulary


class TokenStats(NamedTuple):
    """Per token: log π(a) with gradient, and the entropy of π (with gradient when asked for)."""

    logprobs: Tensor
    entropy: Tensor


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        softcap: float | None,
        want: str,
    ) -> tuple[Tensor, Tensor]:
        count, given = len(hidden), (hidden, targets)
        if short := -count % whole_rows(weight):
            hidden, targets = pad(hidden, (0, 0, 0, short)), pad(targets, (0, short))
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        slopes: list[Tensor] = []
        entropy_slopes: list[Tensor] = []
        for rows in _chunks(hidden):
            at = _Chunk(hidden[rows], weight, bias, temperature, softcap)
            logprobs[rows] = at.logits.gather(1, targets[rows, None]).squeeze(1) - at.normaliser
            entropy[rows] = at.entropy
            if "entropy" in want:
                entropy_slopes.append(_through_head(at.entropy_slope(), at.damping, weight, temperature))
            if "logprobs" in want:
                slopes.append(_through_head(at.slope(targets[rows]), at.damping, weight, temperature))
        learns = ctx.needs_input_grad[1]
        ctx.save_for_backward(
            *((given[0], weight, bias, given[1]) if learns else (None,) * 4),
            *(torch.cat(kept)[:count] for kept in (slopes, entropy_slopes) if kept),
        )
        ctx.dtype, ctx.temperature, ctx.softcap = hidden.dtype, temperature, softcap
        return logprobs[:count], entropy[:count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, targets, *slopes = ctx.saved_tensors
        total = sum(slope * gradient[:, None] for slope, gradient in zip(slopes, gradients, strict=False))
        assert isinstance(total, Tensor)
        grad_weight = grad_bias = None
        if weight is not None:
            grad_weight = torch.zeros_like(weight)
            grad_bias = None if bias is None else torch.zeros_like(bias)
            for rows in _chunks(hidden):
                at = _Chunk(hidden[rows], weight, bias, ctx.temperature, ctx.softcap)
                slope = gradients[1][rows, None] * at.entropy_slope() if len(slopes) > 1 else 0.0
                slope = slope + gradients[0][rows, None] * at.slope(targets[rows])
                if at.damping is not None:
                    slope = slope * at.damping
                slope = slope.div_(ctx.temperature).to(weight.dtype)
                grad_weight += product_for(slope)(slope.T, hidden[rows].to(weight.dtype).T)
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
        return total.to(ctx.dtype), grad_weight, grad_bias, None, None, None, None


class _Chunk:
    """Logits [n,V] of a few tokens at the temperature, with what follows from them."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None
    ) -> None:
        logits = head_logits(hidden, weight, bias)
        self.damping: Tensor | None = None
        if softcap is not None:
            squashed = torch.tanh(logits / softcap)
            logits, self.damping = softcap * squashed, 1 - squashed.square()
        self.logits = logits.div_(temperature)
        self.p = torch.softmax(self.logits, dim=-1)
        # p = e^{z − logsumexp(z)} at the largest z, where it can't underflow.
        self.normaliser = self.logits.amax(-1) - self.p.amax(-1).log()
        self.entropy = self.normaliser - torch.linalg.vecdot(self.p, self.logits)

    def entropy_slope(self) -> Tensor:
        """∂H/∂z = −π(log π + H)."""
        return -self.p * (self.logits - self.normaliser[:, None] + self.entropy[:, None])

    def slope(self, targets: Tensor) -> Tensor:
        """∂log π(a)/∂z = 1_a − π, in place of the probabilities."""
        return self.p.neg_().scatter_add_(1, targets[:, None], torch.ones_like(self.p[:, :1]))


def _chunks(hidden: Tensor) -> Iterator[slice]:
    chunk = CHUNK if hidden.device.type == "cpu" else GPU_CHUNK
    return (slice(start, start + chunk) for start in range(0, len(hidden), chunk))


def head_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """hWᵀ + b in fp32 for h [...,D]. On a CPU by blocks of the vocabulary: one wide product runs a third
    slower."""
    hidden = hidden.to(weight.dtype)
    if bias is not None or weight.device.type != "cpu" or (hidden.requires_grad and torch.is_grad_enabled()):
        return linear(hidden, weight, bias).float()
    rows = hidden.reshape(-1, hidden.shape[-1])
    logits = rows.new_empty(len(rows), len(weight))
    for start in range(0, len(weight), BLOCK):
        product_into(logits[:, start : start + BLOCK], rows, weight[start : start + BLOCK])
    return logits.view(*hidden.shape[:-1], -1).float()


def _through_head(slope: Tensor, damping: Tensor | None, weight: Tensor, temperature: float) -> Tensor:
    """Carry a slope in the scaled logits [n,V] back to the hidden states [n,D]."""
    if damping is not None:
        slope = slope * damping
    slope = slope.to(weight.dtype)
    return product_for(slope)(slope, weight.T).float().div_(temperature)


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    entropy_gradient: bool = False,
) -> TokenStats:
    """Log-probability of `targets` and entropy at each hidden state.

    Args:
        hidden: [N,D] final hidden states; gradient flows into them.
        weight: [V,D] of the output head; gradient flows into it where it learns.
        targets: [N] token ids.
        bias: [V] of the head; most have none.
        temperature: τ > 0.
        softcap: c in z ← c·tanh(z/c) before the temperature (Gemma 2), or None.
        entropy_gradient: let the entropy carry gradient too, at the cost of one more product with W.

    Returns:
        TokenStats of fp32 [N].
    """
    want = ""
    if (hidden.requires_grad or weight.requires_grad) and torch.is_grad_enabled():
        want = "logprobs entropy" if entropy_gradient else "logprobs"
    logprobs, entropy = _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature, softcap, want)
    return TokenStats(logprobs, entropy if entropy_gradient else entropy.detach())
