"""Intervals against published numbers, and against simulation."""

import numpy as np
import pytest

from pipeline.evaluation.statistics import detectable, prompts_needed, wilson, win_rate

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(60, 100, (0.50200, 0.69060)), (0, 10, (0.0, 0.27753)), (10, 10, (0.72247, 1.0)), (1, 1, (0.20654, 1.0))],
)
def test_wilson(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_what_is_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 ≤ successes ≤ n"):
        wilson(successes, n)


def test_one_decided_comparison_a_prompt_gives_wilsons_interval() -> None:
    found = win_rate([[WIN]] * 60 + [[LOSS]] * 40)
    assert (found.low, found.high) == wilson(60, 100)
    assert (found.rate, found.wins, found.ties, found.losses, found.n) == (0.6, 60, 0, 40, 100)


def test_a_tie_counts_half() -> None:
    found = win_rate([[WIN], [TIE], [TIE], [LOSS], [LOSS], [LOSS]])
    assert found.rate == pytest.approx(2 / 6)
    assert (found.wins, found.ties, found.losses) == (1, 2, 3)
    assert found.low < found.rate < found.high


def test_the_same_against_the_same_is_one_half() -> None:
    """All ties: 50 %, and an interval around it. As many wins as losses: the same."""
    ties = win_rate([[TIE]] * 50)
    assert ties.rate == 0.5
    assert ties.low < 0.5 < ties.high
    even = win_rate([[WIN], [LOSS]] * 100)
    assert even.rate == 0.5
    assert 0.5 - even.low == pytest.approx(even.high - 0.5)


def test_unanimity_has_a_width() -> None:
    """A bootstrap of identical outcomes would claim certainty."""
    for outcomes in ([[WIN]] * 20, [[WIN, WIN]] * 20):
        found = win_rate(outcomes)
        assert (found.rate, found.high) == (1.0, pytest.approx(1.0))
        assert found.low == pytest.approx(wilson(20, 20)[0])


def test_a_prompt_counts_once_however_often_it_is_judged() -> None:
    assert win_rate([[WIN] * 10, [LOSS]]).rate == 0.5


def test_comparisons_of_one_prompt_are_no_new_evidence() -> None:
    """Ten copies of each outcome: the interval stays that of 40 prompts, not that of 400."""
    outcomes = [WIN] * 24 + [LOSS] * 16
    once = win_rate([[outcome] for outcome in outcomes])
    ten = win_rate([[outcome] * 10 for outcome in outcomes])
    assert (ten.high - ten.low) == pytest.approx(once.high - once.low, rel=0.15)  # bootstrap against Wilson
    pooled = wilson(240, 400)
    assert ten.high - ten.low > 2 * (pooled[1] - pooled[0])


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    """300 simulated comparisons of 80 prompts: win .45, tie .2, loss .35, so the truth is .55."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        outcomes = rng.choice([WIN, TIE, LOSS], p=[0.45, 0.2, 0.35], size=80)
        found = win_rate([[float(outcome)] for outcome in outcomes], resamples=300, seed=seed)
        covered += found.low <= 0.55 <= found.high
    assert covered / 300 == pytest.approx(0.95, abs=0.035)  # 2.5 standard errors, and the bootstrap is a bit narrow


def test_the_bootstrap_has_a_seed() -> None:
    outcomes = [[WIN], [TIE], [LOSS], [WIN], [WIN], [TIE], [LOSS]]
    assert win_rate(outcomes, seed=1) == win_rate(outcomes, seed=1)
    assert win_rate(outcomes, seed=1, resamples=50) != win_rate(outcomes, seed=2, resamples=50)


@pytest.mark.parametrize("outcomes", [[], [[]], [[WIN], []]])
def test_nothing_to_compare_is_refused(outcomes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one comparison"):
        win_rate(outcomes)


@pytest.mark.parametrize("outcome", [2.0, -1.0, 0.7, float("nan")])
def test_an_outcome_is_a_win_a_tie_or_a_loss(outcome: float) -> None:
    with pytest.raises(ValueError, match="outcomes are 1"):
        win_rate([[outcome]])


def test_prompts_needed() -> None:
    assert (prompts_needed(0.55), prompts_needed(0.6)) == (785, 197)
    assert prompts_needed(0.4) == 197  # worse is as visible as better
    for rate in (0.5, 0.0, 1.0):
        with pytest.raises(ValueError, match="rate must lie in"):
            prompts_needed(rate)


def test_detectable_is_the_other_way_round() -> None:
    assert (detectable(785), detectable(197), detectable(1)) == (0.55, 0.6, 1.0)
    assert detectable(784) > 0.55


def test_figures_are_named_for_the_result_file() -> None:
    names = set(win_rate([[WIN], [LOSS]]).figures())
    assert names == {"", "_low", "_high", "_wins", "_ties", "_losses", "_n"}
