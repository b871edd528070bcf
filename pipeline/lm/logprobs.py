"""Log-probabilities of given tokens, without ever holding [N,V] logits.

For hidden states h [N,D] and the head's weight W [V,D] and bias b [V] at temperature τ: logits z = (hWᵀ + b)/τ,
log π(a) = z_a − logsumexp(z). Each token's log-probability depends on its own hidden state only, with
∂log π(a)/∂h = (W_a − πW)/τ. So the forward pass walks over chunks of tokens, keeps that one vector per token when a
gradient will be wanted, and drops the logits: the same multiplications as usual, no logits kept or rebuilt.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

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
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        slopes: list[Tensor] = []
        entropy_slopes: list[Tensor] = []
        chunk = CHUNK if hidden.device.type == "cpu" else GPU_CHUNK
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = head_logits(hidden[rows], weight, bias)
            damping = None
            if softcap is not None:
                squashed = torch.tanh(logits / softcap)
                logits, damping = softcap * squashed, 1 - squashed.square()
            p = torch.softmax(logits.div_(temperature), dim=-1)
            # p = e^{z − logsumexp(z)} at the largest z, where it can't underflow.
            normaliser = logits.amax(-1) - p.amax(-1).log()
            logprobs[rows] = logits.gather(1, targets[rows, None]).squeeze(1) - normaliser
            entropy[rows] = normaliser - torch.linalg.vecdot(p, logits)
            if "entropy" in want:
                slope = -p * (logits - normaliser[:, None] + entropy[rows, None])
                entropy_slopes.append(_through_head(slope, damping, weight, temperature))
            if "logprobs" in want:
                del logits
                slope = p.neg_().scatter_add_(1, targets[rows, None], torch.ones_like(p[:, :1]))
                slopes.append(_through_head(slope, damping, weight, temperature))
        ctx.save_for_backward(*(torch.cat(kept) for kept in (slopes, entropy_slopes) if kept))
        ctx.dtype = hidden.dtype
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total = sum(slope * gradient[:, None] for slope, gradient in zip(ctx.saved_tensors, gradients, strict=False))
        assert isinstance(total, Tensor)
        return total.to(ctx.dtype), None, None, None, None, None, None


def head_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """hWᵀ + b in fp32 for h [...,D]. On a CPU by blocks of the vocabulary: one wide product runs a third slower in
    MKL."""
    hidden = hidden.to(weight.dtype)
    if bias is not None or weight.device.type != "cpu" or (hidden.requires_grad and torch.is_grad_enabled()):
        return linear(hidden, weight, bias).float()
    rows = hidden.reshape(-1, hidden.shape[-1])
    logits = rows.new_empty(len(rows), len(weight))
    for start in range(0, len(weight), BLOCK):
        torch.mm(rows, weight[start : start + BLOCK].T, out=logits[:, start : start + BLOCK])
    return logits.view(*hidden.shape[:-1], -1).float()


def _through_head(slope: Tensor, damping: Tensor | None, weight: Tensor, temperature: float) -> Tensor:
    """Carry a slope in the scaled logits [n,V] back to the hidden states [n,D]."""
    if damping is not None:
        slope = slope * damping
    return (slope.to(weight.dtype) @ weight).float().div_(temperature)


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
        weight: [V,D] of the frozen output head; no gradient.
        targets: [N] token ids.
        bias: [V] of the head, frozen too; most have none.
        temperature: τ > 0.
        softcap: c in z ← c·tanh(z/c) before the temperature (Gemma 2), or None.
        entropy_gradient: let the entropy carry gradient too, at the cost of one more product with W.

    Returns:
        TokenStats of fp32 [N].
    """
    want = ""
    if hidden.requires_grad and torch.is_grad_enabled():
        want = "logprobs entropy" if entropy_gradient else "logprobs"
    logprobs, entropy = _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature, softcap, want)
    return TokenStats(logprobs, entropy if entropy_gradient else entropy.detach())
