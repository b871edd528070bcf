"""How much better than expected was it? With a critic (GAE), or against other samples (everything else).

Rows of a group are adjacent: row = prompt · group_size + sample.
"""

from typing import Literal

import torch
from torch import Tensor

from pipeline.rl.returns import discounted_returns, discounts_and_lambdas, gae
from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import masked_scale, masked_whiten

Algorithm = Literal["ppo", "a2c", "reward_to_go", "reinforce", "reinforce++", "rloo", "grpo", "dr_grpo"]
ALGORITHMS: tuple[Algorithm, ...] = (
    "ppo",
    "a2c",
    "reward_to_go",
    "reinforce",
    "reinforce++",
    "rloo",
    "grpo",
    "dr_grpo",
)
Normalize = Literal["none", "scale", "whiten"]


def rloo_advantages(scores: Tensor) -> Tensor:
    """A_i = r_i − mean_{j≠i} r_j = G/(G−1) · (r_i − r̄) (Kool et al. 2019; Ahmadian et al. 2024,
    "Back to Basics", on RLOO).

    Args:
        scores: [P,G], the KL price already subtracted.

    Returns:
        [P,G] in score units; each group sums to 0, equal scores give exactly 0.

    Raises:
        ValueError: if scores is not [P,G] with G ≥ 2.
    """
    centred = _centre(scores)
    return centred * (scores.shape[1] / (scores.shape[1] - 1))


def group_normalized_advantages(scores: Tensor, *, scale: Literal["std", "none"] = "std", eps: float = 1e-4) -> Tensor:
    """A_i = (r_i − r̄) / (std + eps), std with ddof 1 (Shao et al. 2024, "DeepSeekMath", Sec. 4.1.2).

    scale="none" leaves the division out: it would favour prompts that are nearly solved or nearly hopeless
    (Liu et al. 2025, "Understanding R1-Zero-Like Training", Sec. 3, Dr. GRPO).

    Args:
        scores: [P,G].
        scale: "std" or "none".
        eps: added to the deviation, score units.

    Returns:
        [P,G]; each group sums to 0, equal scores give exactly 0, never NaN.

    Raises:
        ValueError: if scores is not [P,G] with G ≥ 2, or scale is unknown.
    """
    if scale not in ("std", "none"):
        raise ValueError(f"scale: got {scale!r}; use 'std' or 'none'")
    centred = _centre(scores)
    return centred if scale == "none" else centred / (centred.std(dim=1, keepdim=True) + eps)


def batch_baseline_advantages(scores: Tensor) -> Tensor:
    """A_b = r_b − mean(r) (Williams 1992, with the batch mean as reinforcement baseline).

    Args:
        scores: [B].

    Returns:
        [B] in score units; sums to 0.

    Raises:
        ValueError: if scores is not [B] with B ≥ 2 (one row would always have advantage 0).
    """
    if scores.ndim != 1 or scores.shape[0] < 2:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}, need [B] with B ≥ 2; add rows or use a critic")
    return _centre(scores[None])[0]


def zero_variance_share(scores: Tensor) -> float:
    """Share of groups whose scores are all equal, in [0, 1]: prompts from which group methods learn nothing.

    Raises:
        ValueError: if scores is not [P,G] with P ≥ 1 and G ≥ 2.
    """
    _check_groups(scores)
    return float((scores == scores[:, :1]).all(dim=1).double().mean())


def estimate_advantages(
    algorithm: Algorithm,
    rollout: Rollout,
    *,
    group_size: int = 1,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    normalize: Normalize = "none",
) -> tuple[Tensor, Tensor | None]:
    """Per-step advantages of a rollout, and what the critic should have said.

    ppo, a2c: GAE, then `normalize`; returns = UNnormalised A + V; λ = 1 is REINFORCE with a learned baseline.
    reward_to_go: each step gets what came after it, G_t (Sutton & Barto 2018, Sec. 13.3). reinforce++: the same,
    always whitened over all real steps (Hu et al. 2025, "REINFORCE++"). The others credit every step with its row's
    advantage, computed from Σ_t γ^t r_t: score minus KL price (there a row must be one episode; an empty row counts
    as 0). reinforce subtracts the batch mean.

    Args:
        algorithm: one of ALGORITHMS.
        rollout: rewards final; ppo and a2c also need values and next_values.
        group_size: G, for rloo, grpo and dr_grpo; adjacent rows share a prompt.
        gamma: discount in [0, 1].
        gae_lambda: λ in [0, 1], for ppo and a2c.
        normalize: "scale" divides by the deviation of real steps, "whiten" also shifts their mean.

    Returns:
        (advantages [B,T], returns [B,T] or None without a critic), constants; 0 at padding.

    Raises:
        ValueError: if an option is unknown, ppo or a2c lacks values, or B is no multiple of a group_size ≥ 2.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm: got {algorithm!r}; use one of {', '.join(ALGORITHMS)}")
    if normalize not in ("none", "scale", "whiten"):
        raise ValueError(f"normalize: got {normalize!r}; use 'none', 'scale' or 'whiten'")
    rewards = torch.where(rollout.mask, rollout.rewards, torch.zeros_like(rollout.rewards)).detach()
    returns = None
    if algorithm in ("ppo", "a2c"):
        advantages, returns = _gae_advantages(rollout, rewards, gamma, gae_lambda)
    elif algorithm in ("reward_to_go", "reinforce++"):
        discounts, lambdas = discounts_and_lambdas(rollout, gamma, 1.0)
        advantages = discounted_returns(rewards, discounts * lambdas, rewards.new_zeros(()))
        normalize = "whiten" if algorithm == "reinforce++" else normalize
    else:
        per_row = _row_advantages(algorithm, _row_scores(rewards, gamma), group_size)
        advantages = per_row[:, None] * rollout.mask
    if normalize == "scale":
        advantages = masked_scale(advantages, rollout.mask)
    elif normalize == "whiten":
        advantages = masked_whiten(advantages, rollout.mask)
    return advantages, returns


def _gae_advantages(rollout: Rollout, rewards: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    if rollout.values is None or rollout.next_values is None:
        raise ValueError("values: got None; GAE needs a critic: rollout.with_values(...), or choose 'reinforce'")
    zeros = torch.zeros_like(rollout.values)
    values = torch.where(rollout.mask, rollout.values, zeros).detach()
    next_values = torch.where(rollout.mask, rollout.next_values, zeros).detach()
    discounts, lambdas = discounts_and_lambdas(rollout, gamma, gae_lambda)
    advantages = gae(rewards, values, next_values, discounts, lambdas)
    return advantages, advantages + values


def _row_scores(rewards: Tensor, gamma: float) -> Tensor:
    """Σ_t γ^t r_t, [B]."""
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma: got {gamma}; use a number in [0, 1]")
    weights = gamma ** torch.arange(rewards.shape[1], device=rewards.device, dtype=rewards.dtype)
    return (rewards * weights).sum(dim=1)


def _row_advantages(algorithm: Algorithm, scores: Tensor, group_size: int) -> Tensor:
    if algorithm == "reinforce":
        return batch_baseline_advantages(scores)
    if group_size < 2 or scores.shape[0] % group_size:
        raise ValueError(
            f"group_size: got {group_size} for {scores.shape[0]} rows; {algorithm!r} needs at least 2, "
            "and a divisor of the rows"
        )
    groups = scores.view(-1, group_size)
    if algorithm == "rloo":
        return rloo_advantages(groups).flatten()
    return group_normalized_advantages(groups, scale="std" if algorithm == "grpo" else "none").flatten()


def _check_groups(scores: Tensor) -> None:
    if scores.ndim != 2:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}, need [P,G]; use scores.view(-1, group_size)")
    if scores.shape[1] < 2:
        raise ValueError(f"scores: got group size {scores.shape[1]}, need ≥ 2; sample more completions per prompt")
    if scores.shape[0] == 0:
        raise ValueError("scores: got 0 groups, need ≥ 1; check the prompts")


def _centre(scores: Tensor) -> Tensor:
    """r − r̄ per group."""
    _check_groups(scores)
    # Relative to the first score, equal scores are exactly 0; their mean in floating point may be an ulp off.
    shifted = scores - scores[:, :1]
    return shifted - shifted.mean(dim=1, keepdim=True)
