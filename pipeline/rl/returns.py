"""From rewards to returns and temporal-difference advantages.

Every estimator takes a discount and a λ PER STEP. Endings live in these two tensors and nowhere else:
terminated → discount 0 (no future), truncated → λ 0 (bootstrap, then stop looking), padding → both 0.
"""

import torch
from torch import Tensor

from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import check_shape


def discounts_and_lambdas(rollout: Rollout, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """d_t = γ · [real and not terminated];  λ_t = λ · [not truncated and the next step is real].

    The last real step of a row has λ 0 because nothing follows; its `next_values` still bootstraps.

    Args:
        rollout: B rows of T steps.
        gamma: discount in [0, 1].
        gae_lambda: λ in [0, 1]; 0 = one-step TD, 1 = Monte Carlo.

    Returns:
        (discounts, lambdas), both [B,T] in the dtype of the rewards.

    Raises:
        ValueError: if gamma or gae_lambda lies outside [0, 1].
    """
    for name, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: got {value}; use a number in [0, 1]")
    dtype = rollout.rewards.dtype
    discounts = gamma * (rollout.mask & ~rollout.terminated).to(dtype)
    following = torch.zeros_like(rollout.mask)
    following[:, :-1] = rollout.mask[:, 1:]
    lambdas = gae_lambda * (following & ~rollout.truncated).to(dtype)
    return discounts, lambdas


def discounted_returns(rewards: Tensor, discounts: Tensor, bootstrap: Tensor) -> Tensor:
    """G_t = r_t + d_t · G_{t+1}, with G_T = bootstrap (Sutton & Barto 2018, Eq. 3.9).

    Args:
        rewards: [B,T].
        discounts: [B,T] in [0, 1].
        bootstrap: [B] (or a scalar tensor), the value after column T; 0 for finished rows. A discount of 0 on
            the way cuts it off, so a row padded or truncated before T needs `gae` with its per-step
            `next_values` instead.

    Returns:
        [B,T] in reward units. Gradient flows through all arguments.

    Raises:
        ValueError: if a shape disagrees.
    """
    check_shape("discounts", discounts, rewards.shape)
    following = bootstrap.expand(rewards.shape[0])
    returns: list[Tensor] = []
    for reward, discount in zip(reversed(rewards.unbind(1)), reversed(discounts.unbind(1)), strict=True):
        following = reward + discount * following
        returns.append(following)
    return torch.stack(returns[::-1], dim=1) if returns else torch.zeros_like(rewards)


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, discounts: Tensor, lambdas: Tensor) -> Tensor:
    """A_t = δ_t + d_t λ_t A_{t+1}, with δ_t = r_t + d_t V(s_{t+1}) − V(s_t); not whitened.

    Schulman et al. 2016, "High-Dimensional Continuous Control Using GAE", Eq. 11–16.

    Args:
        rewards: [B,T].
        values: [B,T] V(s_t).
        next_values: [B,T] V of the true successor, also across an auto-reset.
        discounts: [B,T] in [0, 1]; 0 where terminated.
        lambdas: [B,T] in [0, 1]; 0 where truncated.

    Returns:
        [B,T] in reward units. Padding is 0 if rewards and values are. Pass detached values: an advantage is a
        constant.

    Raises:
        ValueError: if a shape disagrees.
    """
    for name, value in (("values", values), ("next_values", next_values), ("lambdas", lambdas)):
        check_shape(name, value, rewards.shape)
    deltas = td_target(rewards, next_values, discounts) - values
    return discounted_returns(deltas, discounts * lambdas, deltas.new_zeros(()))


def td_target(rewards: Tensor, next_values: Tensor, discounts: Tensor) -> Tensor:
    """y = r + d · V(s').  For Q-learning V(s') = max_a Q(s', a) (Mnih et al. 2015, Algorithm 1).

    With d = 0 where terminated and d = γ where truncated, a time limit still bootstraps from the true final
    observation, and a real ending does not.

    Args:
        rewards: any shape.
        next_values: the same shape; value of the true successor, never of the state after a reset.
        discounts: the same shape, in [0, 1].

    Returns:
        The same shape, in reward units. Gradient flows through `next_values`; losses detach their targets.

    Raises:
        ValueError: if a shape disagrees.
    """
    check_shape("next_values", next_values, rewards.shape)
    check_shape("discounts", discounts, rewards.shape)
    return rewards + discounts * next_values


def n_step_target(rewards: Tensor, lengths: Tensor, next_values: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """y = Σ_{k<m} γ^k r_k + γ^m [not terminated] V(s_m)  (Sutton & Barto 2018, Eq. 7.1; Hessel et al. 2018, Sec. 3).

    Off-policy it is biased: the actions on the way are those that were taken, not the best ones.

    Args:
        rewards: [N,n], 0 behind the m-th.
        lengths: [N] integers m in 1..n, fewer than n where an episode, or what is known of it, ends before.
        next_values: [N] value of the state after m steps.
        terminated: [N] bool, whether that state has no future.
        gamma: discount in [0, 1].

    Returns:
        [N], in reward units.

    Raises:
        ValueError: if a shape disagrees.
    """
    for name, value in (("lengths", lengths), ("terminated", terminated)):
        check_shape(name, value, rewards.shape[:1])
    summed = discounted_returns(rewards, torch.full_like(rewards, gamma), rewards.new_zeros(()))[:, 0]
    return td_target(summed, next_values, gamma ** lengths.to(summed.dtype) * ~terminated)
