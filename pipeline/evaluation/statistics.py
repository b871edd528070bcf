"""Win rates over prompts: one, the difference of two, a family of them, and by slice. Everything here is in [0, 1].

A prompt is one observation, however many samples of it were judged. An outcome is 1 (win), ½ (tie), 0 (loss), or
anything between from a judge that gives probabilities.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.evaluation.intervals import Array, mean_interval, p_value, wilson
from pipeline.evaluation.power import detectable, prompts_needed

__all__ = [
    "TOO_FEW",
    "Difference",
    "WinRate",
    "adjusted",
    "by_slice",
    "detectable",
    "holm",
    "length_bands",
    "paired_difference",
    "prompt_means",
    "prompts_needed",
    "wilson",
    "win_rate",
]

Outcomes = Sequence[Sequence[float]]  # by prompt, one outcome a comparison
TOO_FEW = "too few"


@dataclass(frozen=True)
class WinRate:
    """Outcome of a comparison over n prompts.

    Attributes:
        rate: mean over prompts of their mean outcomes; (wins + ½ ties) / comparisons where each has as many.
        low, high: 95 % interval.
        wins, ties, losses: comparisons with an outcome above, at and below ½.
        n: prompts.
        p: two-sided p-value against one half; below .05 where the interval leaves one half out.
    """

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    n: int
    p: float

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
            "_p": self.p,
        }


@dataclass(frozen=True)
class Difference:
    """By how much one win rate is above another over the same n prompts, in [−1, 1], with its 95 % interval."""

    difference: float
    low: float
    high: float
    n: int
    p: float


def win_rate(outcomes: Outcomes) -> WinRate:
    """Win rate with a 95 % interval over prompts (`mean_interval`; Wilson's for one decided comparison a prompt).

    Raises:
        ValueError: no prompts, a prompt without comparisons, or an outcome outside of [0, 1].
    """
    means = prompt_means(outcomes)
    flat = np.array(list(chain.from_iterable(outcomes)))
    low, high = mean_interval(means)
    wins, ties, losses = (int(np.sum(found)) for found in (flat > 0.5, flat == 0.5, flat < 0.5))
    return WinRate(float(means.mean()), low, high, wins, ties, losses, len(means), p_value(means))


def prompt_means(outcomes: Outcomes) -> Array:
    """Mean outcome of each prompt, [n].

    Raises:
        ValueError: no prompts, a prompt without comparisons, or an outcome outside of [0, 1].
    """
    if len(outcomes) == 0 or any(len(prompt) == 0 for prompt in outcomes):
        raise ValueError("a win rate needs at least one comparison for each of at least one prompt")
    if not all(0 <= outcome <= 1 for prompt in outcomes for outcome in prompt):
        raise ValueError("outcomes are 1 (win), 0.5 (tie), 0 (loss) or between them")
    return np.array([np.mean(prompt) for prompt in outcomes])


def paired_difference(first: Outcomes, second: Outcomes) -> Difference:
    """Is one policy better than another, judged by their win rates over the same baseline on the same prompts?

    d_i = mean outcome of the first on prompt i − that of the second, in [−1, 1]: what makes a prompt easy for both
    cancels. (d + 1)/2 is a mean in [0, 1] like any other, so the interval and the p-value (of no difference) are those
    of `mean_interval`. The two may have different numbers of samples.

    Raises:
        ValueError: as `prompt_means`, or different numbers of prompts.
    """
    if len(first) != len(second):
        raise ValueError(
            f"a paired difference needs the same prompts on both sides, got {len(first)} and {len(second)}"
        )
    shifted = (prompt_means(first) - prompt_means(second) + 1) / 2
    low, high = mean_interval(shifted)
    return Difference(2 * float(shifted.mean()) - 1, 2 * low - 1, 2 * high - 1, len(shifted), p_value(shifted))


def adjusted(family: Mapping[str, Outcomes]) -> dict[str, float]:
    """p-value of each win rate of a family against one half, adjusted for there being so many (`holm`)."""
    return holm({name: p_value(prompt_means(outcomes)) for name, outcomes in family.items()})


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: rejecting those below α errs at all in at most a share α of families (Holm 1979).

    p̃₍ᵢ₎ = max over j ≤ i of min(1, (k − j + 1) · p₍ⱼ₎), for k p-values in ascending order. They may depend on one
    another in any way. .01, .03, .04 → .03, .06, .06.
    """
    order = sorted(p, key=lambda name: p[name])
    raised = np.maximum.accumulate([min(1.0, (len(p) - i) * p[name]) for i, name in enumerate(order)])
    found = dict(zip(order, raised.tolist(), strict=True))
    return {name: found[name] for name in p}


def by_slice(outcomes: Outcomes, labels: Sequence[str | None], *, minimum: int = 10) -> dict[str, WinRate]:
    """Win rate of each label, numbers in labels in their order; prompts without a label are left out.

    Labels with fewer than `minimum` prompts are put together under "too few", which comes last: their own intervals
    would span nearly everything, and the largest of many small slices is mostly luck.

    Raises:
        ValueError: as `win_rate`, or not one label a prompt.
    """
    slices: dict[str, list[Sequence[float]]] = {}
    for prompt, label in zip(outcomes, labels, strict=True):
        if label is not None:
            slices.setdefault(label, []).append(prompt)
    kept = {label: slices[label] for label in sorted(slices, key=_natural) if len(slices[label]) >= minimum}
    rest = [prompt for label, prompts in slices.items() if label not in kept for prompt in prompts]
    return {label: win_rate(prompts) for label, prompts in (kept | ({TOO_FEW: rest} if rest else {})).items()}


def length_bands(lengths: Sequence[int], *, bands: int = 4) -> list[str]:
    """The quantile band of each length as a label for `by_slice`, such as "13–40": about equally many in each.

    Equal lengths share a band, so there are fewer bands where many are equal.
    """
    tops = np.unique(np.quantile(lengths, np.arange(1, bands + 1) / bands, method="inverted_cdf"))
    places = np.searchsorted(tops, lengths)
    members = [np.asarray(lengths)[places == place] for place in range(len(tops))]
    names = [f"{found.min()}–{found.max()}" if np.ptp(found) else f"{found.min()}" for found in members]
    return [names[place] for place in places]


def _natural(label: str) -> list[str | int]:
    """So that "9–12" comes before "13–40"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", label)]
