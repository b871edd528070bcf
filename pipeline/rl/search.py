"""Search by visits: which move to look at next, what a search says of the moves, and learning from it.

N(s, a) counts how often a search went through a move, W(s, a) sums what it found behind it, in the eyes of the player
who moves at s; Q = W / N. Everything is [B,A] for B searches side by side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.rl.tensors import check_shape


def puct_scores(
    priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor, *, exploration: float, reduction: float
) -> Tensor:
    """Q(s, a) + c P(s, a) √(1 + Σ_b N(s, b)) / (1 + N(s, a)) (Silver et al. 2017, after Rosin 2011).

    A move without visits has no Q yet; it is taken for V(s) − f √(Σ_b P(s, b) [N(s, b) > 0]): the more of the policy
    has been looked at, the less the rest promises (first-play urgency, Wu 2019, Sec. 4). V(s) is the mean of the
    first value of s and of all that was found below it.

    Args:
        priors: [B,A], P; 0 for moves that aren't legal.
        visits: [B,A], N.
        totals: [B,A], W.
        values: [B], the first value of s, in [−1, 1] for the player to move.
        exploration: c ≥ 0.
        reduction: f ≥ 0.

    Returns:
        [B,A], −∞ for moves that aren't legal.

    Raises:
        ValueError: if a shape disagrees.
    """
    _check(priors, visits, totals, values)
    looked = visits > 0
    total = 1 + visits.sum(dim=1, keepdim=True)
    first = (values[:, None] + totals.sum(dim=1, keepdim=True)) / total
    first = first - reduction * (priors * looked).sum(dim=1, keepdim=True).sqrt()
    q = torch.where(looked, totals / visits.clamp_min(1), first)
    scores = q + exploration * priors * total.sqrt() / (1 + visits)
    return scores.masked_fill_(priors <= 0, -torch.inf)


def ucb_scores(priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor, *, exploration: float) -> Tensor:
    """Q(s, a) + c √(ln Σ_b N(s, b) / N(s, a)) (UCT, Kocsis & Szepesvári 2006); moves without visits come first.

    Args:
        priors: [B,A]; of the moves without visits, the one with the highest comes first; 0 for moves that aren't legal.
        visits, totals, values: as for `puct_scores`; the values aren't used.
        exploration: c ≥ 0; √2 for results in [0, 1], here they lie in [−1, 1].

    Returns:
        [B,A], −∞ for moves that aren't legal.

    Raises:
        ValueError: if a shape disagrees.
    """
    _check(priors, visits, totals, values)
    total = visits.sum(dim=1, keepdim=True).clamp_min(1)
    tried = visits.clamp_min(1)
    scores = totals / tried + exploration * (total.log() / tried).sqrt()
    scores = torch.where(visits > 0, scores, 1e6 + priors)  # far above any score, and floats still see the priors
    return scores.masked_fill_(priors <= 0, -torch.inf)


@dataclass(frozen=True)
class Puct:
    """`puct_scores` with its constants."""

    exploration: float = 1.5
    reduction: float = 0.2

    def __call__(self, priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor) -> Tensor:
        return puct_scores(priors, visits, totals, values, exploration=self.exploration, reduction=self.reduction)


@dataclass(frozen=True)
class Ucb:
    """`ucb_scores` with its constant."""

    exploration: float = 1.4

    def __call__(self, priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor) -> Tensor:
        return ucb_scores(priors, visits, totals, values, exploration=self.exploration)


def noisy_priors(priors: Tensor, gammas: Tensor, share: float) -> Tensor:
    """(1 − ε) P + ε η with η ~ Dirichlet(α) over the legal moves (Silver et al. 2017).

    Args:
        priors: [B,A]; 0 for moves that aren't legal.
        gammas: [B,A], drawn from Γ(α); those of the legal moves over their sum are Dirichlet's.
        share: ε in [0, 1].

    Returns:
        [B,A], rows sum to 1.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("gammas", gammas, priors.shape)
    drawn = gammas.clamp_min(torch.finfo(gammas.dtype).tiny) * (priors > 0)
    return (1 - share) * priors + share * drawn / drawn.sum(dim=1, keepdim=True)


def visit_policy(visits: Tensor, temperature: float) -> Tensor:
    """π(a) = N(a)^(1/T) / Σ_b N(b)^(1/T) (Silver et al. 2017); T = 0 shares all among the most visited.

    Args:
        visits: [B,A] with at least one visit in each row.
        temperature: T ≥ 0.

    Returns:
        [B,A], rows sum to 1.

    Raises:
        ValueError: if T is negative.
    """
    if temperature < 0:
        raise ValueError(f"temperature: got {temperature}; use at least 0")
    shares = visits / visits.amax(dim=1, keepdim=True)
    weights = (shares == 1).to(shares.dtype) if temperature == 0 else shares ** (1 / temperature)
    return weights / weights.sum(dim=1, keepdim=True)


def half_life(start: float, end: float, ply: int, half: float) -> float:
    """end + (start − end) · 2^(−ply / half): a temperature that falls as a game goes on (Wu 2019, App. D)."""
    return end + (start - end) * float(0.5 ** (ply / half))


def search_loss(
    logits: Tensor, values: Tensor, policies: Tensor, targets: Tensor, *, value_coef: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """L = −Σ_a π(a) log p(a) + c (z − v)², means over the batch (Silver et al. 2018, Eq. 1 without the weights' norm).

    Args:
        logits: [B,A] of p; −∞ for moves that aren't legal, which π must not have.
        values: [B], v.
        policies: [B,A], π: the search's visit shares.
        targets: [B], z: how the game ended, for the player to move.
        value_coef: c.

    Returns:
        The loss, its policy part, and its value part (z − v)².

    Raises:
        ValueError: if a shape disagrees.
    """
    check_shape("policies", policies, logits.shape)
    check_shape("values", values, logits.shape[:1])
    check_shape("targets", targets, logits.shape[:1])
    log_p = logits.log_softmax(dim=1)
    policy_loss = -(policies * log_p.masked_fill(policies == 0, 0.0)).sum(dim=1).mean()
    value_loss = (targets - values).square().mean()
    return policy_loss + value_coef * value_loss, policy_loss, value_loss


def _check(priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor) -> None:
    check_shape("visits", visits, priors.shape)
    check_shape("totals", totals, priors.shape)
    check_shape("values", values, priors.shape[:1])
