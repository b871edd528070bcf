"""Action values Q(s, a): which successor value to bootstrap from, a step in a table, exploring, duelling heads.

With `returns.td_target` these are Q-learning, SARSA, Expected SARSA, DQN and Double DQN:
y = td_target(r, successor_values(…), d).
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from pipeline.rl.tensors import check_shape

Successor = Literal["max", "taken", "expected"]
SUCCESSORS: tuple[Successor, ...] = ("max", "taken", "expected")


def successor_values(
    q: Tensor, kind: Successor, *, actions: Tensor | None = None, probabilities: Tensor | None = None
) -> Tensor:
    """V(s') as three algorithms see it (Sutton & Barto 2018, Eq. 6.8, 6.7, 6.9).

    "max": max_a Q(s', a), Q-learning, off-policy. "taken": Q(s', a'), SARSA, on-policy: exploration's price is in
    it. "expected": Σ_a π(a | s') Q(s', a), Expected SARSA. Double DQN (van Hasselt et al. 2016) is "taken" too: q from
    the target network, a' the best action of the online network.

    Args:
        q: [N,A], the rows of the successors.
        kind: one of SUCCESSORS.
        actions: [N] int64, the actions taken there; for "taken".
        probabilities: [N,A], the acting policy there; for "expected".

    Returns:
        [N] in return units.

    Raises:
        ValueError: if kind is unknown, or what it needs is missing or of another shape.
    """
    if kind == "max":
        return q.amax(dim=1)
    if kind == "taken":
        if actions is None:
            raise ValueError("actions: got None; 'taken' needs the actions of the next step")
        check_shape("actions", actions, q.shape[:1])
        return q.gather(1, actions[:, None]).squeeze(1)
    if kind == "expected":
        if probabilities is None:
            raise ValueError("probabilities: got None; 'expected' needs the acting policy")
        check_shape("probabilities", probabilities, q.shape)
        return (probabilities * q).sum(dim=1)
    raise ValueError(f"kind: got {kind!r}; use one of {', '.join(SUCCESSORS)}")


def td_step(q: Tensor, states: Tensor, actions: Tensor, targets: Tensor, rates: Tensor) -> Tensor:
    """Q(s, a) ← Q(s, a) + α (y − Q(s, a)), IN PLACE (Sutton & Barto 2018, Eq. 6.8).

    Several entries for one (s, a), as parallel environments give them, count by their mean: a step of size α towards
    the mean of their targets.

    Args:
        q: [S,A], changed.
        states: [N] int64.
        actions: [N] int64.
        targets: [N] from `td_target`.
        rates: [N], α in [0, 1].

    Returns:
        [N] TD errors y − Q(s, a), before the step.

    Raises:
        ValueError: if the shapes differ.
    """
    for name, value in (("actions", actions), ("targets", targets), ("rates", rates)):
        check_shape(name, value, states.shape)
    flat, cells = q.view(-1), states * q.shape[1] + actions
    errors = targets - flat[cells]
    counts = torch.bincount(cells)[cells] if len(cells) > 1 else 1
    flat.index_add_(0, cells, rates * errors / counts)
    return errors


def epsilon_greedy(q: Tensor, epsilon: float) -> Tensor:
    """π(a|s) = (1 − ε) · [a is best] + ε / A; actions that tie for best share (Sutton & Barto 2018, Sec. 2.2).

    Args:
        q: [N,A].
        epsilon: ε in [0, 1].

    Returns:
        [N,A] probabilities.

    Raises:
        ValueError: if epsilon lies outside [0, 1].
    """
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon: got {epsilon}; use a number in [0, 1]")
    best = (q == q.amax(dim=1, keepdim=True)).to(q.dtype)
    return (1.0 - epsilon) * best / best.sum(dim=1, keepdim=True) + epsilon / q.shape[1]


def explore(q: Tensor, epsilon: float, generator: torch.Generator | None = None) -> Tensor:
    """Actions [N] drawn from `epsilon_greedy`, in four operations; of actions that tie for best, the first.

    Args:
        q: [N,A].
        epsilon: ε in [0, 1].
        generator: source of the draws.
    """
    best = q.argmax(dim=1)
    anyhow = torch.randint(q.shape[1], best.shape, generator=generator)
    return torch.where(torch.rand(best.shape, generator=generator) < epsilon, anyhow, best)


@torch.no_grad()
def polyak_step(target: Iterable[Tensor], online: Iterable[Tensor], rate: float) -> None:
    """θ⁻ ← θ⁻ + τ (θ − θ⁻), IN PLACE: the target network follows (Lillicrap et al. 2016); τ = 1 copies.

    Args:
        target: θ⁻, changed.
        online: θ, in the same order.
        rate: τ in (0, 1].
    """
    for slow, fast in zip(target, online, strict=True):
        slow.lerp_(fast, rate)


def dueling(values: Tensor, advantages: Tensor) -> Tensor:
    """Q(s, a) = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, Eq. 9).

    Args:
        values: [..., 1], return units.
        advantages: [..., A]; only differences between actions matter.

    Returns:
        [..., A], whose mean over actions is V.

    Raises:
        ValueError: if `values` doesn't end in 1, or the leading dimensions differ.
    """
    check_shape("values", values, (*advantages.shape[:-1], 1))
    return values + advantages - advantages.mean(dim=-1, keepdim=True)
