"""Intervals for shares and win rates. Everything here is in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy import stats


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927); 0 of 10 → (0, .2775).

    Raises:
        ValueError: unless 0 ≤ successes ≤ n and n ≥ 1.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"wilson needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}")
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class WinRate:
    """Outcome of a comparison over n prompts. `rate` = (wins + ½ ties) / comparisons."""

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    n: int

    def figures(self) -> dict[str, float | int]:
        """For result.json: the rate under "", the others under suffixes."""
        return {
            "": self.rate,
            "_low": self.low,
            "_high": self.high,
            "_wins": self.wins,
            "_ties": self.ties,
            "_losses": self.losses,
            "_n": self.n,
        }


def win_rate(outcomes: Sequence[Sequence[float]], *, resamples: int = 2000, seed: int = 0) -> WinRate:
    """Win rate with a 95 % interval over prompts.

    Args:
        outcomes: one inner sequence per prompt, with an outcome of 1 (win), ½ (tie) or 0 (loss) per comparison.
        resamples: bootstrap resamples, used when ties or several comparisons per prompt rule Wilson out.
        seed: of the bootstrap.

    Returns:
        The rate over prompts (each prompt counts once, whatever its number of comparisons). With one decided
        comparison per prompt the interval is Wilson's; otherwise prompts are resampled whole (percentile bootstrap),
        since comparisons on one prompt aren't independent. A bootstrap of a unanimous sample has no width, so it is
        widened to Wilson's there.

    Raises:
        ValueError: no prompts, a prompt without comparisons, or an outcome that isn't 0, ½ or 1.
    """
    if not outcomes or any(len(prompt) == 0 for prompt in outcomes):
        raise ValueError("win_rate needs at least one comparison for each of at least one prompt")
    flat = [outcome for prompt in outcomes for outcome in prompt]
    if any(outcome not in (0, 0.5, 1) for outcome in flat):
        raise ValueError("outcomes are 1 (win), 0.5 (tie) or 0 (loss)")
    means = np.array([np.mean(prompt) for prompt in outcomes])
    n = len(means)
    binary = all(len(prompt) == 1 and prompt[0] != 0.5 for prompt in outcomes)
    if binary or np.ptp(means) == 0:
        low, high = wilson(round(float(means.sum())), n)
    else:
        draws = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
        low, high = np.quantile(means[draws].mean(axis=1), [0.025, 0.975]).tolist()
    wins, ties = flat.count(1), flat.count(0.5)
    return WinRate(float(means.mean()), low, high, wins, ties, len(flat) - wins - ties, n)


def prompts_needed(rate: float, *, against: float = 0.5, power: float = 0.8, confidence: float = 0.95) -> int:
    """Prompts for which a two-sided test tells `rate` from `against` with this power: 785 for .55, 197 for .6.

    n = (z_α + z_β)² p₀(1 − p₀) / (p − p₀)², the normal approximation with the variance at p₀ = `against`.
    """
    if not (0 < rate < 1 and rate != against):
        raise ValueError(f"rate must lie in (0, 1) and differ from {against}, got {rate}")
    z = float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power))
    return ceil(z**2 * against * (1 - against) / (rate - against) ** 2)


def detectable(n: int, *, against: float = 0.5) -> float:
    """The smallest win rate above `against` that n prompts can tell from it, to three digits (80 % power)."""
    for thousandth in range(int(against * 1000) + 1, 1000):
        if prompts_needed(thousandth / 1000, against=against) <= n:
            return thousandth / 1000
    return 1.0
