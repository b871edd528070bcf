"""How far several people, a judge and people, or reward models say the same: raw agreement, κ, α, ensembles' spread.

Each coefficient is a function of sums over units (what was rated by several), so that one multiplication of the
bootstrap's weights with the units' parts gives all of its resamples. Categories are whole numbers from 0, in their
order where they have one; −1 is a missing rating.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from pipeline.evaluation.intervals import mean_interval, tails

Array = NDArray[np.float64]
Level = Literal["nominal", "ordinal", "interval"]
RESAMPLES = 2000
AT_ONCE = 250  # resamples whose weights are in memory together


@dataclass(frozen=True)
class Coefficient:
    """`value` of the sum over units of `parts`: [n, m] and [..., m] → [...]; NaN where nothing could disagree."""

    parts: Array
    value: Callable[[Array], Array]

    def __call__(self) -> float:
        return float(self.value(self.parts.sum(0)))


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its 95 % interval over units; `n` units took part."""

    value: float
    low: float
    high: float
    n: int

    def figures(self, name: str) -> dict[str, float]:
        """For JSON: the value under its name, the bounds under suffixes."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def counts(ratings: ArrayLike, categories: int) -> Array:
    """How many gave each category to each unit, [n, categories], from ratings [n, raters]."""
    found = np.asarray(ratings)
    return (found[:, :, None] == np.arange(categories)).sum(1).astype(np.float64)


def raw_agreement(table: ArrayLike) -> Estimate | None:
    """Mean over units of the share of pairs of raters that agree, in [0, 1]; units with one rating say nothing.

    Its interval is that of a mean over units (`intervals.mean_interval`), which a bootstrap would make too narrow where
    nearly all agree. None where no unit has two ratings.

    Args:
        table: [n, k], ratings of each unit by category, see `counts`.
    """
    parts = _fleiss_parts(table)
    return mean_share(parts[parts[:, 1] > 0, 0])


def mean_share(shares: Array) -> Estimate | None:
    """Mean of shares in [0, 1], one a unit, with its 95 % interval (`intervals.mean_interval`); None of none."""
    return Estimate(float(shares.mean()), *mean_interval(shares), len(shares)) if len(shares) else None


def fleiss_kappa(table: ArrayLike) -> Coefficient:
    """κ = (P̄ − P̄e)/(1 − P̄e) of any number of raters, who needn't be the same for each unit (Fleiss 1971).

    With n_ij raters of unit i in category j and n_i of them in all: P_i = Σⱼ n_ij(n_ij − 1) / (n_i(n_i − 1)), P̄ its
    mean over units; p_j the share of category j among all ratings, P̄e = Σ p_j². Fleiss has the same n_i for all units;
    here units with fewer than two are left out, and P_i counts each unit once.

    Args:
        table: [n, k], ratings of each unit by category.
    """

    def value(sums: Array) -> Array:
        shares = sums[..., 2:] / np.maximum(sums[..., 2:].sum(-1, keepdims=True), 1.0)
        return chance_corrected(_ratio(sums[..., 0], sums[..., 1]), (shares**2).sum(-1))

    return Coefficient(_fleiss_parts(table), value)


def cohen_kappa(tables: ArrayLike) -> Coefficient:
    """κ = (p − e)/(1 − e) of two raters: p the share of equal ratings, e = Σ p_c· p_·c by their margins (Cohen 1960).

    Args:
        tables: [n, k, k], of each unit how often the first gave the row's category and the second the column's.
    """
    found = np.asarray(tables, dtype=np.float64)
    k = found.shape[-1]

    def value(sums: Array) -> Array:
        joint = sums.reshape(*sums.shape[:-1], k, k)
        joint = joint / np.maximum(joint.sum((-2, -1), keepdims=True), 1.0)
        return chance_corrected(np.trace(joint, axis1=-2, axis2=-1), (joint.sum(-1) * joint.sum(-2)).sum(-1))

    return Coefficient(found.reshape(len(found), k * k), value)


def two_raters(first: ArrayLike, second: ArrayLike, categories: int) -> Array:
    """[n, k, k] for `cohen_kappa`: one table a unit, all 0 where either is missing."""
    one, other = (np.asarray(side)[:, None] == np.arange(categories) for side in (first, second))
    return (one[:, :, None] & other[:, None, :]).astype(np.float64)


def krippendorff_alpha(table: ArrayLike, level: Level) -> Coefficient:
    """α = 1 − D_o/D_e for any number of raters and missing ratings (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability").

    o_ck = Σ over units of n_uc(n_uk − [c = k]) / (m_u − 1), with n_uc of m_u ratings of unit u in category c; n_c its
    margins, n their sum. D_o = Σ o_ck δ²_ck / n, D_e = Σ n_c n_k δ²_ck / (n(n − 1)). The difference δ²_ck is
    [c ≠ k] (nominal), (Σ from c to k of n_g − (n_c + n_k)/2)² (ordinal), or (c − k)² (interval).

    Args:
        table: [n, k], ratings of each unit by category; units with fewer than two say nothing.
    """
    rated = np.asarray(table, dtype=np.float64)
    k = rated.shape[1]
    together = rated[:, :, None] * (rated[:, None, :] - np.eye(k))
    coincidences = together / np.maximum(rated.sum(1) - 1, 1.0)[:, None, None]

    def value(sums: Array) -> Array:
        observed = sums.reshape(*sums.shape[:-1], k, k)
        margins = observed.sum(-1)
        total = margins.sum(-1)
        apart = _apart(margins, level)
        expected = margins[..., :, None] * margins[..., None, :]
        by_chance = _ratio((expected * apart).sum((-2, -1)), total - 1)
        return 1 - _ratio((observed * apart).sum((-2, -1)), by_chance)

    return Coefficient(coincidences.reshape(len(rated), k * k), value)


def estimate(coefficient: Coefficient, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | None:
    """The coefficient with a 95 % interval from a bootstrap over units (`intervals.tails` says which quantiles).

    Units that say nothing (parts all 0) aren't drawn. Resamples in which nothing could disagree are left aside. None
    where that holds for the units themselves. Where all agree, so do all resamples, and the interval is a point: then
    the interval of `raw_agreement` is the one to read.
    """
    parts = coefficient.parts[coefficient.parts.any(1)]
    n = len(parts)
    if n == 0 or np.isnan(value := float(coefficient.value(parts.sum(0)))):
        return None
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, AT_ONCE):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=min(AT_ONCE, resamples - start))
        drawn.append(coefficient.value(weights @ parts))
    low, high = np.nanquantile(np.concatenate(drawn), tails(n))
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def disagreement(differences: Array) -> Array:
    """Deviation over the members of an ensemble of the probability that the first answer wins, [n], in [0, ½].

    std over members k of σ(d_k), d_k = r_k(a) − r_k(b) in logits (Christiano et al. 2017, §2.2.4, ask about what the
    members' predictions vary on most).

    Args:
        differences: [members, n].
    """
    found: Array = expit(differences).std(0)
    return found


def chance_corrected(observed: Array, expected: Array) -> Array:
    """(p − e)/(1 − e), NaN where e = 1."""
    return _ratio(observed - expected, 1 - expected)


def _fleiss_parts(table: ArrayLike) -> Array:
    """Of each unit P_i, 1, and its ratings by category; all 0 where it has fewer than two."""
    rated = np.asarray(table, dtype=np.float64)
    number = rated.sum(1)
    several = number >= 2
    agree = (rated * (rated - 1)).sum(1) / np.where(several, number * (number - 1), 1.0)
    return np.column_stack([agree, np.ones(len(rated)), rated]) * several[:, None]


def _apart(margins: Array, level: Level) -> Array:
    """δ² between categories, [..., k, k]."""
    k = margins.shape[-1]
    places = np.arange(k)
    if level == "nominal":
        return 1.0 - np.eye(k)
    if level == "interval":
        return (places[:, None] - places).astype(np.float64) ** 2
    middle = np.cumsum(margins, -1) - margins / 2  # ranks of the categories' middles
    found: Array = (middle[..., :, None] - middle[..., None, :]) ** 2
    return found


def _ratio(top: Array, bottom: Array) -> Array:
    """top/bottom, NaN where bottom is 0 but for rounding."""
    bottom = np.asarray(bottom, dtype=np.float64)
    near = np.abs(bottom) < 1e-12
    return np.where(near, np.nan, top / np.where(near, 1.0, bottom))
