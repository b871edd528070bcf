"""What the best of n answers is worth, from N > n answers to each prompt."""

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def best_of_n_kl(n: int) -> float:
    """KL(best of n ‖ one answer) is at most log n − (n − 1)/n nats (Stiennon et al. 2020)."""
    return log(n) - (n - 1) / n


def weights(count: int, n: int) -> Array:
    """How likely the i-th lowest of N answers is the highest of n that are drawn: C(i−1, n−1) / C(N, n), [N].

    From the top down, each is the one above it times (i + 1 − n)/i: no large number appears, whatever N.

    Raises:
        ValueError: unless 1 ≤ n ≤ N.
    """
    if not 1 <= n <= count:
        raise ValueError(f"the best of n needs 1 ≤ n ≤ {count} answers, got n = {n}")
    below = np.arange(count - 1, 0, -1)
    factors = np.maximum(below + 1 - n, 0) / below
    return n / count * np.cumprod(np.concatenate([[1.0], factors]))[::-1]


def best_of_n(scores: Array, values: Array, sizes: Sequence[int]) -> Array:
    """Expected value of the answer with the highest score among n of a prompt's N; unbiased, for each n in `sizes`.

    Σ_i C(i−1, n−1) v_(i) / C(N, n), with v_(i) the value of the answer with the i-th lowest score (Nakano et al. 2021).
    `values` are the scores themselves, or somebody else's view of the same answers. Equal scores share their values.

    Args:
        scores, values: [P,N] each, by prompt.
        sizes: every n, from 1 to N.

    Returns:
        [P, len(sizes)].

    Raises:
        ValueError: shapes differ, or an n isn't from 1 to N.
    """
    if scores.shape != values.shape or scores.ndim != 2:
        raise ValueError(f"scores and values must both be [P,N], got {scores.shape} and {values.shape}")
    ordered = np.stack([_by_score(*row) for row in zip(scores, values, strict=True)])
    return ordered @ np.stack([weights(scores.shape[1], n) for n in sizes], axis=1)


def _by_score(scores: Array, values: Array) -> Array:
    """Values in the order of their scores; where scores are equal, their mean."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values) / counts
    return np.repeat(means, counts)
