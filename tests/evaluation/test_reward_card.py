"""The card's figures: counted by hand, and on synthetic preferences whose truth is known."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from pipeline.evaluation.reward_card import (
    CardError,
    ScoredPairs,
    accuracy,
    agreement,
    card,
    hardest,
    length_baseline,
    order_share,
    subset_means,
)
from pipeline.evaluation.statistics import wilson


def scored(chosen: Any, rejected: Any, **options: Any) -> ScoredPairs:
    n = len(chosen)
    defaults: dict[str, Any] = {
        "chosen_tokens": np.ones(n),
        "rejected_tokens": np.ones(n),
        "prompts": [str(row) for row in range(n)],
        "subsets": [""] * n,
    }
    return ScoredPairs(np.array(chosen, dtype=float), np.array(rejected, dtype=float), **defaults | options)


def test_a_tie_is_wrong() -> None:
    figures = accuracy(np.array([1.0, 0.0, -1.0, 2.0]))
    assert (figures["accuracy"], figures["accuracy_low"], figures["accuracy_high"]) == (0.5, *wilson(2, 4))


def test_length_is_the_better_of_two_and_ties_count_half() -> None:
    assert length_baseline(np.array([5, 2, 3, 3]), np.array([1, 4, 3, 1])) == {
        "length_baseline": 0.625,
        "longer_wins": 0.625,
    }
    assert length_baseline(np.array([1, 1]), np.array([2, 2])) == {"length_baseline": 1.0, "longer_wins": 0.0}
    assert order_share(np.array([-1.0, -2.0]), np.array([-2.0, -2.0])) == 0.75


def test_figures_of_subsets_and_their_means() -> None:
    """All three of a are right and the one of b is wrong: each counts once, .5, or by its pairs, .75. The last pair
    belongs to no subset."""
    pairs = scored(
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        subsets=["a", "a", "a", "b", ""],
        chosen_tokens=np.array([1, 1, 1, 2, 1]),
        rejected_tokens=np.array([2, 2, 2, 1, 1]),
        logprobs=np.array([[-1.0] * 5, [-2.0, -2, -0.5, -2, -2]]),
    )
    figures = card(pairs)
    assert figures["n"] == 5
    assert figures["accuracy"] == 0.6
    assert (figures["subsets.a.n"], figures["subsets.a.accuracy"]) == (3, 1.0)
    assert (figures["subsets.b.n"], figures["subsets.b.accuracy"]) == (1, 0.0)
    assert (figures["subsets.a.longer_wins"], figures["subsets.b.longer_wins"]) == (0.0, 1.0)
    assert figures["subsets.a.logprob_baseline"] == pytest.approx(2 / 3)
    assert (figures["subset_mean"], figures["subset_mean_weighted"]) == (0.5, 0.75)
    assert not [key for key in figures if key.startswith("subsets..")]


def test_subset_means() -> None:
    assert subset_means([0.9, 0.5], [10, 30]) == pytest.approx({"subset_mean": 0.7, "subset_mean_weighted": 0.6})


def test_a_change_of_units_is_no_miscalibration() -> None:
    """Scores divided by 4 with the scale told: confidence stays, the histogram's units change."""
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(1, 2, 200), rng.normal(0, 2, 200)
    plain, scaled = card(scored(chosen, rejected)), card(scored(chosen / 4, rejected / 4, scale=4.0))
    for key in ("accuracy", "ece", "log_loss", "temperature", "ece_after_temperature"):
        assert scaled[key] == pytest.approx(plain[key])
    assert scaled["score_bins"][-1] == pytest.approx(plain["score_bins"][-1] / 4, abs=1e-4)


def test_histograms_hold_every_answer_over_common_bins() -> None:
    figures = card(scored([0, 1, 3], [1, 2, 4]))
    assert len(figures["score_bins"]) == len(figures["chosen_counts"]) + 1
    assert (figures["score_bins"][0], figures["score_bins"][-1]) == (0, 4)
    assert sum(figures["chosen_counts"]) == sum(figures["rejected_counts"]) == 3
    assert (figures["chosen_counts"][0], figures["rejected_counts"][-1]) == (1, 1)
    assert (figures["chosen_counts"][6], figures["rejected_counts"][6]) == (1, 1)  # both have a 1


def test_one_prompt_has_no_temperature() -> None:
    figures = card(scored([1, 2], [0, 0], prompts=["same", "same"]))
    assert "temperature" not in figures
    assert figures["accuracy"] == 1.0


def test_agreement_of_two_models() -> None:
    first, second = np.array([1.0, 2.0, -1.0, 0.0]), np.array([2.0, 4.0, 1.0, 0.0])
    found = agreement(first, second)
    assert found["equal_orders"] == 0.75
    assert found["correlation"] == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert agreement(first, np.zeros(4)) == {"equal_orders": 0.25}


def test_the_hardest_errors_come_first_and_right_pairs_never() -> None:
    assert hardest(np.array([1.0, -3.0, 0.0, -5.0]), 10) == [3, 1, 2]
    assert hardest(np.array([1.0, -3.0, 0.0, -5.0]), 1) == [3]


def test_nothing_and_nan_are_refused() -> None:
    with pytest.raises(CardError, match="no pairs"):
        scored([], [])
    with pytest.raises(CardError, match="NaN or infinite"):
        scored([1.0, float("nan")], [0.0, 0.0])


def test_a_linear_reward_model_on_synthetic_preferences() -> None:
    """50 items, 20,000 pairs drawn by Bradley–Terry, half of them to learn from: the fitted scores are the true ones
    (r > .98), held-out accuracy is Bayes', and confidence is deserved (ECE < .03, temperature near 1)."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 50)
    first, second = rng.integers(0, 50, 40_000), rng.integers(0, 50, 40_000)
    first, second = (side[first != second][:20_000] for side in (first, second))
    wins = rng.random(20_000) < expit(truth[first] - truth[second])
    winner, loser = np.where(wins, first, second), np.where(wins, second, first)
    train, test = slice(0, 10_000), slice(10_000, None)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        difference = theta[winner[train]] - theta[loser[train]]
        slope = -expit(-difference)
        gradient = np.bincount(winner[train], slope, 50) - np.bincount(loser[train], slope, 50)
        return float(-log_expit(difference).sum()), gradient

    theta = minimize(loss, np.zeros(50), jac=True, method="L-BFGS-B").x
    assert np.corrcoef(theta, truth)[0, 1] > 0.98
    figures = card(scored(theta[winner[test]], theta[loser[test]]))
    bayes = accuracy(truth[winner[test]] - truth[loser[test]])["accuracy"]
    assert abs(figures["accuracy"] - bayes) < 2 * (bayes * (1 - bayes) / 10_000) ** 0.5
    assert figures["ece"] < 0.03
    assert figures["temperature"] == pytest.approx(1, abs=0.1)
    # The same model, three times as sure of itself: as accurate, and found out.
    loud = card(scored(3 * theta[winner[test]], 3 * theta[loser[test]]))
    assert loud["accuracy"] == figures["accuracy"]
    assert loud["ece"] > 0.1
    assert loud["temperature"] == pytest.approx(3 * figures["temperature"], rel=1e-3)
    assert loud["ece_after_temperature"] < 0.03
