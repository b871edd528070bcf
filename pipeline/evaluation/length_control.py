"""Win rates at equal length: how often would an answer win if it were as long as the other?

Judges like long answers, people's preferences do, and so policies grow them. A logistic regression of the outcome on
the difference in length separates what length explains from the rest (Dubois et al. 2024, "Length-Controlled
AlpacaEval"; theirs has the prompts' difficulty as a second variable, which takes the verdicts of many models).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.evaluation.intervals import Array, mean_interval, tails
from pipeline.evaluation.logistic import logistic
from pipeline.evaluation.statistics import Outcomes, prompt_means

HARDLY = 0.1  # overlap below which a rate at equal length is an extrapolation
CELLS = 2_000_000  # resamples × rows at a time


@dataclass(frozen=True)
class LengthControlled:
    """Win rate at equal length.

    Attributes:
        rate: σ(α), the outcome expected where the difference in length is 0.
        low, high: 95 % interval from a bootstrap of the whole fit over prompts (`intervals.tails`).
        slope: β, the change in log-odds for one standard deviation of the difference; > 0 where longer answers win.
        overlap: share of comparisons on the rarer side of equal length, of [0, ½]; equal lengths stand on both. Below
            `HARDLY`, one system is nearly always the longer one, and the rate rests on the curve's shape alone.
        separated: whether the sign of the difference tells every outcome; any rate at equal length fits such data.
    """

    rate: float
    low: float
    high: float
    slope: float
    overlap: float
    separated: bool

    @property
    def extrapolated(self) -> bool:
        return self.overlap < HARDLY

    def figures(self) -> dict[str, float]:
        """For result.json, under suffixes."""
        return {
            "_length_controlled": self.rate,
            "_length_controlled_low": self.low,
            "_length_controlled_high": self.high,
            "_length_overlap": self.overlap,
        }


def length_controlled(
    outcomes: Outcomes, differences: Sequence[Sequence[float]], *, resamples: int = 2000, seed: int = 0
) -> LengthControlled:
    """Win rate at equal length, by logistic regression.

        P(win) = σ(α + β z),   z = (length of the first − length of the second) / standard deviation,   rate = σ(α)

    z isn't centred, so that 0 stays equal length. Each prompt weighs 1; an outcome y is a win of weight y and a loss
    of weight 1 − y. One more win and loss of weight ½ at z = 1 without an intercept keep β finite where lengths
    separate the outcomes (a log F(1, 1) prior; Greenland & Mansournia 2015); on 800 prompts they move nothing before
    the fourth digit.

    Three cases in which a fit would pretend to know:

    - The sign of the difference tells every outcome (`separated`): the interval is [0, 1].
    - All outcomes are wins, or losses, and lengths differ both ways: rate and interval are those without control.
    - All lengths are equal: the same.

    Args:
        outcomes: by prompt, one outcome in [0, 1] a comparison.
        differences: by prompt and comparison, the first's length − the second's, in any unit.
        resamples: of the prompts, each fitted anew.
        seed: of the resamples.

    Raises:
        ValueError: as `prompt_means`, or not one difference an outcome.
    """
    means = prompt_means(outcomes)
    if [len(prompt) for prompt in outcomes] != [len(prompt) for prompt in differences]:
        raise ValueError("length control needs one difference in length for each outcome")
    prompt = np.repeat(np.arange(len(outcomes)), [len(one) for one in outcomes])
    y, z = (np.concatenate([np.asarray(one, dtype=float) for one in rows]) for rows in (outcomes, differences))
    weight = 1 / np.bincount(prompt)[prompt]
    overlap = float(min((z >= 0).mean(), (z <= 0).mean()))
    separated = any(np.all(np.where(side > 0, y == 1, y == 0) & (side != 0)) for side in (z, -z))
    spread = float(z.std())
    if spread == 0 or means.min() == 1 or means.max() == 0:
        rate, slope, (low, high) = float(means.mean()), 0.0, mean_interval(means)
    else:
        fitted = fit(z / spread, y, weight[None])
        rate, slope = float(expit(fitted[0, 0])), float(fitted[0, 1])
        drawn = _resampled(z / spread, y, weight, prompt, resamples, seed)
        low, high = np.quantile(expit(drawn), tails(len(means))).tolist()
    if separated:
        low, high = 0.0, 1.0
    return LengthControlled(rate, low, high, slope, overlap, separated)


def fit(z: Array, y: Array, weights: Array) -> Array:
    """(α, β) of P(y) = σ(α + βz), [fits, 2], for each row of weights, [fits, rows], with the prior on β.

    α is ±∞, and β 0, where all that has weight is a win, or a loss.
    """
    won, lost = weights @ y, weights @ (1 - y)
    certain = (won == 0) | (lost == 0)
    design = np.vstack([np.column_stack([np.ones_like(z), z]), [[0.0, 1.0]]])
    prior = np.ones((len(weights), 1))  # half a win and half a loss
    found = np.column_stack([np.where(won == 0, -np.inf, np.inf), np.zeros(len(weights))])
    found[~certain] = logistic(design, np.append(y, 0.5), np.hstack([weights, prior])[~certain])
    return found


def _resampled(z: Array, y: Array, weight: Array, prompt: NDArray[np.int64], resamples: int, seed: int) -> Array:
    """α of each resample of the prompts."""
    rng = np.random.default_rng(seed)
    prompts = int(prompt[-1]) + 1
    size = max(1, CELLS // len(y))
    drawn = []
    for start in range(0, resamples, size):
        counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), min(size, resamples - start))
        drawn.append(fit(z, y, counts[:, prompt] * weight)[:, 0])
    return np.concatenate(drawn)
