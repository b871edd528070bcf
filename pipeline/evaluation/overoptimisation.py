"""Over-optimisation: what is gained at which distance from SFT, and where gaining turns into gaming.

With d = √KL from where optimisation started, Gao, Schulman and Hilton (2022) found for the score under a judge that
isn't optimised against

    best of n:  R(d) = R(0) + d (α − β d)
    RL:         R(d) = R(0) + d (α − β log d)

α says how well optimisation begins, β how soon it spoils. Both are linear in R(0), α and β.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

Array = NDArray[np.float64]
Method = Literal["best_of_n", "rl"]
DRAWN = 25  # points of a curve that is drawn
ENOUGH = 8  # points that a curve of three numbers should have at the least


@dataclass(frozen=True)
class Peak:
    """Where a curve is highest. `inside`: no further from the start than what was measured."""

    kl: float
    score: float
    inside: bool


@dataclass(frozen=True)
class Curve:
    """A fitted R(d); standard errors of α and β beside them.

    Attributes:
        level: R(0).
        points: different distances that it was fitted to.
        largest_kl: the furthest of them, in nats.
    """

    method: Method
    level: float
    alpha: float
    beta: float
    alpha_se: float
    beta_se: float
    points: int
    largest_kl: float

    def at(self, kl: Array) -> Array:
        """R at KL ≥ 0."""
        weights = np.array([self.level, self.alpha, self.beta])
        return _design(self.method, np.sqrt(np.asarray(kl, dtype=float))) @ weights

    @property
    def peak(self) -> Peak | None:
        """The highest point: d = α / 2β for best of n, d = exp(α/β − 1) for RL. None where β ≤ 0: it only rises, or for
        best of n where α ≤ 0: it only falls."""
        if self.beta <= 0 or (self.method == "best_of_n" and self.alpha <= 0):
            return None
        exponent = self.alpha / self.beta
        d = exponent / 2 if self.method == "best_of_n" else float(np.exp(min(exponent - 1, 300.0)))
        gained = d * self.alpha / 2 if self.method == "best_of_n" else d * self.beta
        return Peak(d**2, self.level + gained, d**2 <= self.largest_kl)


def fit(kl: Array, scores: Array, method: Method) -> Curve | None:
    """Least squares for R(0), α and β.

    Args:
        kl: [K] in nats; estimates below 0 count as 0.
        scores: [K]; or [P,K], one row for each of P prompts whose points aren't independent (one prompt's best of n at
            several n is taken from the same answers).
        method: which form.

    Returns:
        The curve, with standard errors from the residuals, or over the rows where there are rows. None for fewer than
        four different distances, which three numbers would meet whatever they are.
    """
    d = np.sqrt(np.maximum(kl, 0))
    points = len(np.unique(d))
    if points < 4:
        return None
    design = _design(method, d)
    rows = np.atleast_2d(scores)
    weights, *_ = np.linalg.lstsq(design, rows.T, rcond=None)  # [3,P]
    if len(rows) > 1:
        errors = weights.std(axis=1, ddof=1) / np.sqrt(len(rows))
    else:
        residual = rows[0] - design @ weights[:, 0]
        noise = float(residual @ residual) / max(1, len(d) - 3)
        errors = np.sqrt(noise * np.diag(np.linalg.pinv(design.T @ design)))
    (level, alpha, beta), (_, alpha_se, beta_se) = weights.mean(axis=1).tolist(), errors.tolist()
    return Curve(method, level, alpha, beta, alpha_se, beta_se, points, float(d.max() ** 2))


def measured_peak(kl: Sequence[float], scores: Sequence[float]) -> tuple[int, Peak]:
    """The point with the highest score. `inside`: there is one nearer to the start and one further from it.

    Raises:
        ValueError: there are no points.
    """
    best = int(np.argmax(scores))
    inside = min(kl) < kl[best] < max(kl)
    return best, Peak(float(kl[best]), float(scores[best]), inside)


def caveats(curve: Curve | None) -> list[str]:
    """What a fitted curve doesn't show, a clause each; none where there is nothing to say."""
    if curve is None:
        return ["there are too few different distances to fit a curve to, which takes four"]
    found = []
    if curve.points < ENOUGH:
        found.append(f"it is fitted to {curve.points} distances only")
    peak = curve.peak
    if peak is None:
        found.append("it has no peak")
        return found
    if curve.beta < 2 * curve.beta_se:
        found.append(f"that it turns down isn't shown: β = {curve.beta:.2g} ± {curve.beta_se:.2g}")
    if not peak.inside:
        found.append(f"its peak, at KL {peak.kl:.3g}, lies beyond what was measured (KL {curve.largest_kl:.3g})")
    return found


def figures(curve: Curve | None) -> dict[str, Any]:
    """The curve, its peak and what they don't show, for result files; `line` holds (KL, score) to draw it by."""
    if curve is None:
        return {"caveats": caveats(curve)}
    kl = np.linspace(0, np.sqrt(curve.largest_kl), DRAWN) ** 2
    line = np.stack([kl, curve.at(kl)], axis=1).round(4).tolist()
    peak = {} if curve.peak is None else {f"peak_{key}": value for key, value in asdict(curve.peak).items()}
    return {**asdict(curve), **peak, "line": line, "caveats": caveats(curve)}


def _design(method: Method, d: Array) -> Array:
    """Columns that R(0), α and β multiply, [K,3]."""
    spoils = d * d if method == "best_of_n" else xlogy(d, d)
    return np.stack([np.ones_like(d), d, -spoils], axis=1)
