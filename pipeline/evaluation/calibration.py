"""Are a reward model's probabilities right? What it claims against what came out.

Under the Bradley–Terry model a difference Δ = r_chosen − r_rejected claims that the higher score is right with
probability σ(|Δ|). Here Δ is in logits, the units of the loss that trained the model: a change of units afterwards is
no miscalibration. A pair is right where Δ > 0; a tie is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from pipeline.evaluation.statistics import wilson

Array = NDArray[np.float64]
BINS = 10  # of confidence, from one half to one
BANDS = 5  # of differences, with as many pairs each
FOLDS = 5
COOLEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Band:
    """Pairs whose |Δ| lies between `smallest` and `largest`: mean σ(|Δ|), share right, Wilson's 95 % interval."""

    n: int
    smallest: float
    largest: float
    confidence: float
    accuracy: float
    low: float
    high: float


def log_loss(differences: Array) -> float:
    """Mean of −log σ(Δ), nats a pair: ln 2 for a coin."""
    return float(np.logaddexp(0, -differences).mean())


def calibration(differences: Array, *, bins: int = BINS) -> list[Band]:
    """Pairs by their confidence σ(|Δ|), in bins of equal width from one half to one; empty ones are left out."""
    return _bands(differences, _bin(expit(np.abs(differences)), bins))


def by_margin(differences: Array, *, bands: int = BANDS) -> list[Band]:
    """Pairs by |Δ|, in bands between its quantiles. Equal differences share a band, so there may be fewer."""
    size = np.abs(differences)
    inner = np.quantile(size, np.linspace(0, 1, bands + 1)[1:-1])
    return _bands(differences, np.searchsorted(inner, size, side="right"))


def ece(bands: Sequence[Band]) -> float:
    """Expected calibration error Σ_b n_b/N · |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017)."""
    total = sum(band.n for band in bands)
    return sum(band.n * abs(band.accuracy - band.confidence) for band in bands) / total


def ece_by_chance(differences: Array, *, bins: int = BINS, draws: int = 200, seed: int = 0) -> float:
    """The mean ECE of a model with these confidences that is perfectly calibrated: what so few pairs show by chance."""
    confidence = expit(np.abs(differences))
    place = _bin(confidence, bins)
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(draws):
        right = rng.random(len(confidence)) < confidence
        total += np.abs(np.bincount(place, weights=right - confidence)).sum() / len(confidence)
    return float(total / draws)


def fit_temperature(differences: Array) -> float:
    """T > 0 with the least mean of −log σ(Δ/T) (Guo et al. 2017): above 1 the model is too sure, below 1 too unsure.

    The loss is convex in 1/T. It has no minimum where every pair is right, or where Δ is no better than chance: then
    the answer is the limit of the search, .05 or 20.
    """
    found: Any = minimize_scalar(
        lambda log_t: log_loss(differences * np.exp(-log_t)),
        bounds=(np.log(COOLEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def cross_fitted(differences: Array, prompts: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> Array:
    """Δ/T [N], each pair's T chosen on the pairs of other prompts: none is judged by what it helped to choose.

    Raises:
        ValueError: all pairs have the same prompt.
    """
    names, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    if len(names) < 2:
        raise ValueError("cross-fitting needs pairs of at least two prompts")
    fold = np.random.default_rng(seed).permutation(len(names))[prompt] % min(folds, len(names))
    scaled = np.empty_like(differences)
    for one in range(fold.max() + 1):
        scaled[fold == one] = differences[fold == one] / fit_temperature(differences[fold != one])
    return scaled


def _bin(confidence: Array, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence, which is from one half to one."""
    return np.minimum((2 * confidence - 1) * bins, bins - 1).astype(np.int64)


def _bands(differences: Array, place: NDArray[np.int64]) -> list[Band]:
    found = []
    for one in np.unique(place):
        part = differences[place == one]
        size, right = np.abs(part), part > 0
        low, high = wilson(int(right.sum()), len(part))
        share, confidence = float(right.mean()), float(expit(size).mean())
        found.append(Band(len(part), float(size.min()), float(size.max()), confidence, share, low, high))
    return found
