"""What one update tells about itself: per-step statistics of a minibatch, and their summary over all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.rl.kl import kl_k3
from pipeline.rl.objective import Evaluation, Minibatch, Objective
from pipeline.rl.tensors import masked_mean


def _ratio(evaluation: Evaluation, chunk: Minibatch) -> Tensor:
    """ρ = π_new / π_old, 1 at padding."""
    return torch.where(chunk.mask, evaluation.logprobs - chunk.old_logprobs, 0.0).exp()


def measures(evaluation: Evaluation, chunk: Minibatch, objective: Objective, train_policy: bool) -> dict[str, Tensor]:
    """Per-step statistics that are plain means over real steps, whatever the objective's normaliser."""
    found: dict[str, Tensor] = {}
    if train_policy:
        ratio = _ratio(evaluation, chunk)
        if evaluation.entropy is not None:
            found["policy/entropy"] = evaluation.entropy
        # The samples are the OLD policy's, so the unbiased KL(old ‖ new) has the old log-probs in front.
        found["policy/approx_kl"] = kl_k3(chunk.old_logprobs, evaluation.logprobs)
        if objective.policy_loss == "ppo_clip":
            outside = (ratio < 1 - objective.clip_low) | (ratio > 1 + objective.clip_high)
            found["policy/clip_fraction"] = outside.to(ratio.dtype)
    if chunk.returns is not None and chunk.old_values is not None and objective.value_clip is not None:
        assert evaluation.values is not None  # per_step_losses has refused a missing critic
        moved = (evaluation.values - chunk.old_values).abs()
        found["value/clip_fraction"] = (moved > objective.value_clip).to(moved.dtype)
    return found


def extremes(evaluation: Evaluation, chunk: Minibatch) -> dict[str, Tensor]:
    """The largest ratio, and the largest distance of one from 1."""
    ratio = _ratio(evaluation, chunk)
    # The 1 of padding is no ratio.
    return {"policy/ratio_max": torch.where(chunk.mask, ratio, 0.0).max(), "ratio_error": (ratio - 1).abs().max()}


def summary(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over minibatches, the first one's ratio error, the largest ratio of all."""
    if not history:
        return {}
    means = {name: sum(stats[name] for stats in history) / len(history) for name in history[0]}
    if "ratio_error" in means:
        del means["ratio_error"]
        means["policy/first_ratio_error"] = history[0]["ratio_error"]
        means["policy/ratio_max"] = max(stats["policy/ratio_max"] for stats in history)
    return means


def explained_variance(whole: Minibatch) -> dict[str, float]:
    """1 − Var(R − V_old) / Var(R) over real steps; absent without a critic or a spread of returns."""
    if whole.returns is None or whole.old_values is None:
        return {}
    returns, residual = whole.returns.double(), (whole.returns - whole.old_values).double()
    spread = masked_mean((returns - masked_mean(returns, whole.mask)).square(), whole.mask)
    error = masked_mean((residual - masked_mean(residual, whole.mask)).square(), whole.mask)
    return {"value/explained_variance": float(1 - error / spread)} if spread > 0 else {}
