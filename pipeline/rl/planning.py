"""Planning with a known model: Bellman backups, value iteration, exact evaluation of a policy.

A model is two tensors. Endings live in the transitions: probability that leads out of the episode is left out, so a
row sums to less than 1, just as `td_target` gets a discount of 0 there.
"""

import torch
from torch import Tensor

from pipeline.rl.returns import td_target
from pipeline.rl.tensors import check_shape


def bellman_backup(rewards: Tensor, transitions: Tensor, values: Tensor, gamma: float) -> Tensor:
    """Q(s, a) = r(s, a) + γ Σ_s' p(s' | s, a) V(s') (Sutton & Barto 2018, Eq. 4.9 without the maximum).

    Args:
        rewards: [S,A], expected over successors.
        transitions: [S,A,S]; p of s' while the episode goes on, so rows sum to at most 1.
        values: [S].
        gamma: discount in [0, 1].

    Returns:
        [S,A] in return units.

    Raises:
        ValueError: if a shape disagrees.
    """
    check_shape("transitions", transitions, (*rewards.shape, rewards.shape[0]))
    check_shape("values", values, rewards.shape[:1])
    return td_target(rewards, transitions @ values, torch.full_like(rewards, gamma))


def value_iteration(
    rewards: Tensor, transitions: Tensor, gamma: float, *, tolerance: float = 1e-9, sweeps: int = 100_000
) -> Tensor:
    """Q* by V ← max_a Q until no value moves by more than `tolerance` (Sutton & Barto 2018, Sec. 4.4).

    Args:
        rewards: [S,A].
        transitions: [S,A,S], rows sum to at most 1.
        gamma: discount in [0, 1]; 1 needs a model whose best policy ends.
        tolerance: of the last move, return units; the error is at most γ/(1−γ) times it.
        sweeps: give up after so many.

    Returns:
        [S,A], Q*.

    Raises:
        ValueError: if a shape disagrees, gamma lies outside [0, 1], or values still move after `sweeps`.
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma: got {gamma}; use a number in [0, 1]")
    values = rewards.new_zeros(rewards.shape[0])
    for _ in range(sweeps):
        q = bellman_backup(rewards, transitions, values, gamma)
        best = q.amax(dim=1)
        moved = (best - values).abs().max()
        values = best
        if moved <= tolerance:
            return q
    raise ValueError(f"values still move by {float(moved):.3g} after {sweeps} sweeps; use gamma below 1")


def policy_evaluation(rewards: Tensor, transitions: Tensor, policy: Tensor, gamma: float) -> Tensor:
    """V_π = (I − γ P_π)⁻¹ r_π, the exact values of a policy (Sutton & Barto 2018, Eq. 4.4, solved).

    Args:
        rewards: [S,A].
        transitions: [S,A,S], rows sum to at most 1.
        policy: [S,A], probabilities.
        gamma: discount in [0, 1]; 1 needs a policy that ends from everywhere.

    Returns:
        [S] in return units.

    Raises:
        ValueError: if a shape disagrees, or a policy that never ends meets gamma = 1.
    """
    check_shape("policy", policy, rewards.shape)
    check_shape("transitions", transitions, (*rewards.shape, rewards.shape[0]))
    expected = (policy * rewards).sum(dim=1)
    moves = torch.einsum("sa,sat->st", policy, transitions)
    system = torch.eye(len(expected), dtype=rewards.dtype, device=rewards.device) - gamma * moves
    solved: Tensor
    solved, info = torch.linalg.solve_ex(system, expected)
    if int(info) != 0:
        raise ValueError(f"gamma: got {gamma} with a policy that never ends from some state; use gamma below 1")
    return solved
