"""The reward model's card: how often it orders pairs right, beside what knows nothing of quality, and how sure it is.

Everything here works on arrays of scores; nobody is asked again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.evaluation.calibration import (
    Band,
    by_margin,
    calibration,
    cross_fitted,
    ece,
    ece_by_chance,
    fit_temperature,
    log_loss,
)
from pipeline.evaluation.statistics import wilson

Array = NDArray[np.float64]
Lengths = NDArray[np.int64]
HISTOGRAM = 24  # bins
DIGITS = 4  # of the figures in lists


class CardError(ValueError):
    """Pairs or scores that make no card; the message says what is wrong."""


@dataclass(frozen=True)
class ScoredPairs:
    """N pairs and what is known of them.

    Attributes:
        chosen, rejected: scores [N].
        chosen_tokens, rejected_tokens: lengths [N], with the prompt or without it.
        prompts: whatever tells prompts apart; pairs of one prompt aren't independent.
        subsets: the part of the data each pair belongs to, "" = none.
        scale: logits per unit of score. Scores may be standardised; the loss was in logits.
        logprobs: mean log-probability a token of chosen and rejected under the base model, [2,N]; None = not known.
    """

    chosen: Array
    rejected: Array
    chosen_tokens: Lengths
    rejected_tokens: Lengths
    prompts: Sequence[str]
    subsets: Sequence[str]
    scale: float = 1.0
    logprobs: Array | None = None

    def __post_init__(self) -> None:
        if len(self.chosen) == 0:
            raise CardError("there are no pairs to make a card of")
        if not (np.isfinite(self.chosen).all() and np.isfinite(self.rejected).all()):
            raise CardError("some scores are NaN or infinite, so there is nothing to compare")

    @property
    def differences(self) -> Array:
        """Δ = r_chosen − r_rejected in logits, [N]."""
        return self.scale * (self.chosen - self.rejected)

    def part(self, name: str) -> "ScoredPairs":
        """The pairs of one subset."""
        rows = [row for row, subset in enumerate(self.subsets) if subset == name]
        arrays = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")
        return replace(
            self,
            **{key: getattr(self, key)[rows] for key in arrays},
            prompts=[self.prompts[row] for row in rows],
            subsets=[name] * len(rows),
            logprobs=None if self.logprobs is None else self.logprobs[:, rows],
        )


def card(pairs: ScoredPairs) -> dict[str, Any]:
    """Every figure of the pairs under its key, those of each subset under `subsets.<name>.<key>`."""
    figures = headline(pairs) | tempered(pairs) | shapes(pairs)
    names = sorted({name for name in pairs.subsets if name})
    if not names:
        return figures
    parts = {name: headline(pairs.part(name)) for name in names}
    figures |= subset_means([part["accuracy"] for part in parts.values()], [part["n"] for part in parts.values()])
    return figures | {f"subsets.{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


def headline(pairs: ScoredPairs) -> dict[str, Any]:
    """Accuracy, the baselines, and how well confidence fits, without any correction."""
    logprob = {} if pairs.logprobs is None else {"logprob_baseline": order_share(*pairs.logprobs)}
    return {
        "n": len(pairs.chosen),
        **accuracy(pairs.differences),
        **length_baseline(pairs.chosen_tokens, pairs.rejected_tokens),
        **logprob,
        **confidence(pairs.differences),
    }


def accuracy(differences: Array) -> dict[str, float]:
    """Share of pairs with Δ > 0 strictly (a tie is wrong), with Wilson's 95 % interval."""
    right, n = int((differences > 0).sum()), len(differences)
    low, high = wilson(right, n)
    return {"accuracy": right / n, "accuracy_low": low, "accuracy_high": high}


def confidence(differences: Array) -> dict[str, float]:
    """Log-loss and expected calibration error, and the ECE that a perfectly calibrated model would show by chance."""
    return {
        "log_loss": log_loss(differences),
        "ece": ece(calibration(differences)),
        "ece_by_chance": ece_by_chance(differences),
    }


def order_share(chosen: NDArray[Any], rejected: NDArray[Any]) -> float:
    """Share of pairs in which the chosen answer's number is the higher one; a tie counts half."""
    return float(0.5 + np.sign(chosen - rejected).mean() / 2)


def length_baseline(chosen: Lengths, rejected: Lengths) -> dict[str, float]:
    """Accuracy of "the longer wins", and of the better of it and "the shorter wins"; ties count half."""
    longer = order_share(chosen, rejected)
    return {"length_baseline": max(longer, 1 - longer), "longer_wins": longer}


def tempered(pairs: ScoredPairs) -> dict[str, float]:
    """The best temperature, and ECE and log-loss with one chosen on other prompts; nothing for a single prompt."""
    if len(set(pairs.prompts)) < 2:
        return {}
    scaled = cross_fitted(pairs.differences, pairs.prompts)
    return {
        "temperature": fit_temperature(pairs.differences),
        "ece_after_temperature": ece(calibration(scaled)),
        "log_loss_after_temperature": log_loss(scaled),
    }


def shapes(pairs: ScoredPairs) -> dict[str, Any]:
    """What is drawn: calibration, accuracy by margin, and histograms of the scores over common bins."""
    both = np.concatenate([pairs.chosen, pairs.rejected])
    edges = np.histogram_bin_edges(both, bins=HISTOGRAM)
    return {
        "calibration": _rows(calibration(pairs.differences)),
        "accuracy_by_margin": _rows(by_margin(pairs.differences)),
        "score_bins": [round(float(edge), DIGITS) for edge in edges],
        "chosen_counts": np.histogram(pairs.chosen, bins=edges)[0].tolist(),
        "rejected_counts": np.histogram(pairs.rejected, bins=edges)[0].tolist(),
    }


def subset_means(accuracies: Sequence[float], sizes: Sequence[int]) -> dict[str, float]:
    """Mean accuracy over subsets, each counting once or by its pairs (RewardBench: Lambert et al. 2024)."""
    return {
        "subset_mean": float(np.mean(accuracies)),
        "subset_mean_weighted": float(np.average(accuracies, weights=sizes)),
    }


def agreement(first: Array, second: Array) -> dict[str, float]:
    """Of two models' differences on the same pairs [N]: share with the same sign, and Pearson's correlation.

    No correlation where one of them is constant.
    """
    figures = {"equal_orders": float((np.sign(first) == np.sign(second)).mean())}
    if len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0:
        figures["correlation"] = float(stats.pearsonr(first, second).statistic)
    return figures


def hardest(differences: Array, count: int) -> list[int]:
    """Pairs that were ordered wrong by the most, the worst first; ties are wrong by 0."""
    order = np.argsort(differences, kind="stable")[:count]
    return [int(row) for row in order if differences[row] <= 0]


def _rows(bands: Sequence[Band]) -> list[dict[str, float]]:
    return [{key: round(value, DIGITS) for key, value in asdict(band).items()} for band in bands]
