"""Reductions over real steps only. Padding never enters a sum, not even as NaN.

The one mask polarity of the project: True = a real action.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token", "sequence", "constant"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token", "sequence", "constant")


def check_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Require `value.shape == shape`: broadcasting a [B] against a [B,T] is silent and wrong.

    Raises:
        ValueError: naming the field, the shape received and the shape needed.
    """
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, need {tuple(shape)}; reshape or pad {name}")


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Σ x over real steps.

    Args:
        x: values, any shape.
        mask: bool, the shape of `x`; True = real.

    Returns:
        A scalar in the units of `x`. Gradient reaches real steps only.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("mask", mask, x.shape)
    # `where`, not `x * mask`: NaN · 0 is NaN.
    return torch.where(mask, x, torch.zeros_like(x)).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Σ x / n over the n real steps; 0 when there is none.

    Args:
        x: values, any shape.
        mask: bool, the shape of `x`; True = real.

    Returns:
        A scalar in the units of `x`. Gradient reaches real steps only.

    Raises:
        ValueError: if the shapes differ.
    """
    return masked_sum(x, mask) / mask.sum().clamp(min=1)


def masked_whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """(x − μ) / √(σ² + eps), with μ and the population variance σ² of the real steps.

    Args:
        x: values, any shape.
        mask: bool, the shape of `x`; True = real.
        shift_mean: False adds μ back afterwards, so the mean is kept and only the spread becomes 1. Meant for
            rewards, whose sign carries meaning (Huang et al. 2024, "The N+ Implementation Details of RLHF
            with PPO").
        eps: added to the variance.

    Returns:
        The shape of `x`, without units; padding is 0. Gradient flows through x, μ and σ.

    Raises:
        ValueError: if the shapes differ.
    """
    mean = masked_mean(x, mask)
    whitened = (x - mean) * torch.rsqrt(_variance(x, mask) + eps)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask, whitened, torch.zeros_like(x))


def masked_scale(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """x / √(σ² + eps), with the population variance σ² of the real steps: signs stay as they are.

    Without any spread only `eps` is left to divide by, so equal non-zero values become huge.

    Args:
        x: values, any shape.
        mask: bool, the shape of `x`; True = real.
        eps: added to the variance.

    Returns:
        The shape of `x`, without units; padding is 0. Gradient flows through x and σ.

    Raises:
        ValueError: if the shapes differ.
    """
    return torch.where(mask, x * torch.rsqrt(_variance(x, mask) + eps), torch.zeros_like(x))


def _variance(x: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def denominator(mask: Tensor, how: Aggregation, max_length: int | None = None) -> Tensor:
    """What `aggregate` divides by. Compute it once over the minibatch; pass it to every microbatch.

    token: Σ mask · sequence: number of non-empty rows · constant: B · max_length.

    Args:
        mask: [B,T] bool; True = real.
        how: the normaliser.
        max_length: L_max in steps; "constant" needs it, the others ignore it.

    Returns:
        A scalar ≥ 1, without gradient.

    Raises:
        ValueError: if `how` is unknown, or "constant" comes without a positive `max_length`.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"how: got {how!r}; use one of {', '.join(AGGREGATIONS)}")
    if how == "token":
        return mask.sum().clamp(min=1)
    if how == "sequence":
        return mask.any(dim=1).sum().clamp(min=1)
    if max_length is None or max_length < 1:
        raise ValueError(f"max_length: got {max_length}; 'constant' needs the completion limit, a positive integer")
    return torch.tensor(max(mask.shape[0], 1) * max_length, device=mask.device)


_divisor = denominator  # `aggregate` has an argument of that name


def aggregate(
    per_step: Tensor,
    mask: Tensor,
    how: Aggregation,
    *,
    denominator: Tensor | None = None,
    max_length: int | None = None,
) -> Tensor:
    """Reduce per-step losses to one number; the choice weighs long rows against short ones.

    token:    Σ_b Σ_t x_bt / Σ_b |b|        every token weighs the same (Yu et al. 2025, "DAPO", Sec. 3.3)
    sequence: Σ_b (Σ_t x_bt / |b|) / rows   every row weighs the same (Shao et al. 2024, "DeepSeekMath")
    constant: Σ_b Σ_t x_bt / (B · L_max)    no length in the denominator (Liu et al. 2025, "Dr. GRPO", Sec. 3)

    A mean of microbatch means is wrong for ragged rows. With the minibatch-wide `denominator`, the SUM over
    microbatches equals the aggregate of the whole.

    Args:
        per_step: [B,T], any units.
        mask: [B,T] bool; True = real.
        how: the normaliser.
        denominator: from `denominator(...)` over the whole minibatch; None takes this tensor's own.
        max_length: L_max in steps, for "constant".

    Returns:
        A scalar in the units of `per_step`; 0 when no step is real. Gradient reaches real steps only.

    Raises:
        ValueError: if the shapes differ, `how` is unknown, or "constant" lacks both denominator and
            max_length.
    """
    check_shape("mask", mask, per_step.shape)
    if how not in AGGREGATIONS:
        raise ValueError(f"how: got {how!r}; use one of {', '.join(AGGREGATIONS)}")
    divisor = _divisor(mask, how, max_length) if denominator is None else denominator
    if how == "sequence":
        sums = torch.where(mask, per_step, torch.zeros_like(per_step)).sum(dim=1)
        return (sums / mask.sum(dim=1).clamp(min=1)).sum() / divisor
    return masked_sum(per_step, mask) / divisor
