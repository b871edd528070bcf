"""One scale for several systems: Bradley–Terry strengths as Elo-like ratings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pipeline.evaluation.intervals import Array, tails
from pipeline.evaluation.logistic import logistic
from pipeline.evaluation.statistics import Outcomes, prompt_means

MIDDLE = 1000.0
LEAST = 1e-6  # weight of half a win: one in a thousand is below it, and a float needs some
SCALE = 400 / np.log(10)  # a tenfold chance to win is 400 points; 75 % is 190.85

Pair = tuple[str, str]
Places = NDArray[np.int64]  # [pairs, 2], or of the groups that systems are in


class RatingError(ValueError):
    """Comparisons from which no common scale follows."""


@dataclass(frozen=True)
class Rating:
    """A system's place on the common scale.

    Attributes:
        rating: 1000 + 400/ln 10 · (θ − the mean of all θ), or − that of the anchor.
        low, high: 95 % interval from a bootstrap over prompts (`intervals.tails`).
        caveat: "" where the data decide. Else the maximum is infinite and the distances rest on the prior of
            `ratings`: "won everything", "lost everything", or "apart" for those beside or between such systems.
    """

    rating: float
    low: float
    high: float
    caveat: str


def ratings(
    comparisons: Mapping[Pair, Outcomes], *, anchor: str | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Rating]:
    """Ratings by maximum likelihood under P(a beats b) = σ(θ_a − θ_b) (Bradley & Terry 1952).

    A prompt's mean outcome counts as that share of one win and the rest of one loss, so a tie is half of each. The
    maximum is finite where no group of systems won everything against the others (Ford 1957). Where one did, in the
    data or in a resample, half a win and half a loss are added to each compared pair (Jeffreys' prior of a share), in
    resamples with weights drawn from Γ(½), so that the interval has a width: then `caveat` says so.

    Args:
        comparisons: by (a, b), the outcomes for a by prompt. All have the same prompts in the same order, since a
            prompt is resampled with all its comparisons; an empty prompt wasn't compared.
        anchor: the system at 1000; None puts their mean there.
        resamples, seed: of the bootstrap.

    Returns:
        By system, the best first.

    Raises:
        RatingError: no pairs, a pair without comparisons, a system against itself, different numbers of prompts, an
            unknown anchor, or systems that no chain of comparisons joins; they are named.
        ValueError: an outcome outside of [0, 1].
    """
    names = list(dict.fromkeys(chain.from_iterable(comparisons)))
    _check(comparisons, names, anchor)
    pairs = np.array([[names.index(a), names.index(b)] for a, b in comparisons])
    wins, losses = _by_prompt(comparisons)
    _require_one_group(pairs, losses + wins, names)
    rng, prompts = np.random.default_rng(seed), len(wins)
    # The prompts as they are come first, then the resamples.
    counts = np.vstack([np.ones(prompts), rng.multinomial(prompts, np.full(prompts, 1 / prompts), resamples)])
    drawn = np.maximum(rng.gamma(0.5, size=(resamples, 2, len(pairs))), LEAST)
    prior = np.concatenate([np.full((1, 2, len(pairs)), 0.5), drawn])
    theta = _strengths(pairs, counts @ wins, counts @ losses, prior, len(names))
    theta -= theta.mean(1, keepdims=True) if anchor is None else theta[:, [names.index(anchor)]]
    low, high = np.quantile(theta[1:], tails(prompts), axis=0)
    caveats = _caveats(pairs, wins.sum(0), losses.sum(0), len(names))
    points = (MIDDLE + SCALE * np.stack([theta[0], low, high])).T.tolist()
    found = {
        name: Rating(rating, below, above, caveat)
        for name, (rating, below, above), caveat in zip(names, points, caveats, strict=True)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].rating))


def _strengths(pairs: Places, wins: Array, losses: Array, prior: Array, systems: int) -> Array:
    """θ of each system, the last at 0, for each row of wins and losses of the pairs' firsts; [fits, systems].

    `prior`, [fits, 2, pairs], is added where the maximum is infinite.
    """
    apart = np.array([_groups(pairs, won, lost, systems)[0] > 1 for won, lost in zip(wins, losses, strict=True)])
    won, lost = (plain + apart[:, None] * prior[:, side] for side, plain in enumerate((wins, losses)))
    design = np.zeros((len(pairs), systems))
    rows = np.arange(len(pairs))
    design[rows, pairs[:, 0]], design[rows, pairs[:, 1]] = 1.0, -1.0
    played = won + lost
    theta = logistic(design[:, :-1], won / np.where(played > 0, played, 1), played)
    return np.column_stack([theta, np.zeros(len(theta))])


def _by_prompt(comparisons: Mapping[Pair, Outcomes]) -> tuple[Array, Array]:
    """Share of a win and of a loss, [prompts, pairs]; both 0 where a prompt wasn't compared."""
    prompts = len(next(iter(comparisons.values())))
    wins, losses = np.zeros((2, prompts, len(comparisons)))
    for place, outcomes in enumerate(comparisons.values()):
        there = [index for index, prompt in enumerate(outcomes) if len(prompt)]
        means = prompt_means([outcomes[index] for index in there])
        wins[there, place], losses[there, place] = means, 1 - means
    return wins, losses


def _groups(pairs: Places, wins: Array, losses: Array, systems: int) -> tuple[int, Places]:
    """Groups of systems within which everyone is beaten, over some chain, by everyone; how many, and whose is which."""
    winner, loser = np.concatenate([pairs, pairs[:, ::-1]])[np.concatenate([wins, losses]) > 0].T
    graph = csr_array((np.ones(len(winner)), (winner, loser)), shape=(systems, systems))
    count, labels = connected_components(graph, directed=True, connection="strong")
    return count, labels


def _caveats(pairs: Places, wins: Array, losses: Array, systems: int) -> list[str]:
    if _groups(pairs, wins, losses, systems)[0] == 1:
        return [""] * systems
    won = np.bincount(pairs[:, 0], wins, systems) + np.bincount(pairs[:, 1], losses, systems)
    lost = np.bincount(pairs[:, 0], losses, systems) + np.bincount(pairs[:, 1], wins, systems)
    return ["won everything" if not lost[i] else "lost everything" if not won[i] else "apart" for i in range(systems)]


def _require_one_group(pairs: Places, compared: Array, names: Sequence[str]) -> None:
    count, labels = _groups(pairs, compared.sum(0), compared.sum(0), len(names))
    if count > 1:
        groups = [
            ", ".join(name for name, label in zip(names, labels, strict=True) if label == i) for i in range(count)
        ]
        raise RatingError(f"no comparison joins these groups, so they have no common scale: {'; '.join(groups)}")


def _check(comparisons: Mapping[Pair, Outcomes], names: Sequence[str], anchor: str | None) -> None:
    if not comparisons:
        raise RatingError("ratings need at least one pair of systems")
    for (a, b), outcomes in comparisons.items():
        if a == b:
            raise RatingError(f"{a} is compared with itself")
        if not any(len(prompt) for prompt in outcomes):
            raise RatingError(f"{a} vs {b} has no comparison")
    sizes = {f"{a} vs {b}": len(outcomes) for (a, b), outcomes in comparisons.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{pair} {size}" for pair, size in sizes.items())
        raise RatingError(f"all pairs need the same prompts (an empty one wasn't compared), got {told}")
    if anchor is not None and anchor not in names:
        raise RatingError(f"the anchor {anchor!r} is none of {', '.join(names)}")
