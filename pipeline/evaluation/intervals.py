"""How sure one may be of a share, or of a mean over prompts. Everything here is in [0, 1]."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927); 0 of 10 → (0, .2775).

    Raises:
        ValueError: unless 0 ≤ successes ≤ n and n ≥ 1.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"wilson needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}")
    low, high = score_interval(successes / n, n, ndtri((1 + confidence) / 2))
    return max(0.0, float(low)), min(1.0, float(high))  # rounding may leave 0 of n at −1e-17


def score_interval(mean: Any, n: Any, critical: Any) -> tuple[Any, Any]:
    """Where |m − p| ≤ c · √(p(1 − p)/n), solved for p: Wilson's interval of a share m of n, elementwise."""
    shrink = critical**2 / n
    half = np.sqrt(shrink * (mean * (1 - mean) + shrink / 4))
    return (mean + shrink / 2 - half) / (1 + shrink), (mean + shrink / 2 + half) / (1 + shrink)


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[Any, Any]:
    """Wilson's interval for a mean of values in [0, 1], on the number of coin flips that they are worth.

    With m the mean and s² the variance (ddof 1) of the n values along the last axis,

        n_eff = m(1 − m) / (s²/n),    |m − p| ≤ t · √(p(1 − p) / n_eff)  solved for p,

    where t is the quantile of Student's t with n − 1 degrees of freedom: the effective sample size of surveys with
    clusters (Korn & Graubard 1998). Ties and several samples a prompt make s² smaller than that of n flips, and so
    n_eff larger. Two special cases:

    - All values 0 or 1: n_eff = n and the normal quantile z, which is Wilson's interval itself.
    - All values equal to v: s² says nothing. A share u = z²/(n + z²) of prompts that differ may have been missed
      (Wilson's bound for 0 of n), so that the interval is [v − v·u, v + (1 − v)·u].

    Args:
        values: [..., n], one value per prompt, n ≥ 1.
        confidence: 0.95 covers the truth 95 times in 100 (scripts/check_intervals.py measures it).

    Returns:
        (low, high), each of the leading shape; floats where there is none.
    """
    x = np.asarray(values, dtype=np.float64)
    n, mean = x.shape[-1], x.mean(-1)
    z = ndtri((1 + confidence) / 2)
    effective, decided = _effective(x)
    critical = np.where(decided, z, stdtrit(max(1, n - 1), (1 + confidence) / 2))
    lowest, highest = score_interval(mean, effective, critical)
    unseen = z**2 / (n + z**2)
    equal = np.ptp(x, axis=-1) == 0
    low = np.where(equal, mean * (1 - unseen), lowest)
    high = np.where(equal, mean + (1 - mean) * unseen, highest)
    return (low, high) if low.ndim else (float(low), float(high))


def p_value(values: ArrayLike, *, against: float = 0.5) -> Any:
    """Two-sided p-value of a mean over prompts against `against`: the test of which `mean_interval` is the inverse.

    p < .05 exactly where the 95 % interval leaves `against` out, so that the two never contradict each other. For
    values of 0 and 1 it is the score test z = (m − p₀) / √(p₀(1 − p₀)/n).
    """
    x = np.asarray(values, dtype=np.float64)
    n, away = x.shape[-1], np.abs(x.mean(-1) - against)
    effective, decided = _effective(x)
    score = away / np.sqrt(against * (1 - against) / effective)
    side = np.where(x.mean(-1) > against, against, 1 - against)
    equal = np.ptp(x, axis=-1) == 0
    score = np.where(equal, np.sqrt(n * away / side), score)
    p = 2 * np.where(decided | equal, ndtr(-score), stdtr(max(1, n - 1), -score))
    return p if p.ndim else float(p)


def tails(n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Which quantiles of a bootstrap over n prompts bound the interval: Φ(∓ t_{n−1} √(n/(n − 1))).

    Resamples vary less than samples do; with (.025, .975), their limits for large n, a small n is covered too rarely
    (the expanded percentile interval, Hesterberg 2015). n = 30 → (.019, .981).
    """
    reach = stdtrit(max(1, n - 1), (1 + confidence) / 2) * np.sqrt(n / max(1, n - 1))
    return float(ndtr(-reach)), float(ndtr(reach))


def _effective(x: Array) -> tuple[Array, Array]:
    """Coin flips that the prompts are worth, and whether each of them is one."""
    n, mean = x.shape[-1], x.mean(-1)
    decided = ((x == 0) | (x == 1)).all(-1)
    variance = ((x - mean[..., None]) ** 2).sum(-1) / max(1, n - 1)
    known = ~decided & (variance > 0)
    return np.where(known, n * mean * (1 - mean) / np.where(known, variance, 1.0), float(n)), decided
