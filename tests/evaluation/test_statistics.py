"""Win rates, their differences, families and slices, against published numbers and numbers made by hand."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.intervals import p_value
from pipeline.evaluation.statistics import (
    TOO_FEW,
    adjusted,
    by_slice,
    detectable,
    holm,
    length_bands,
    paired_difference,
    prompts_needed,
    wilson,
    win_rate,
)

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(60, 100, (0.50200, 0.69060)), (0, 10, (0.0, 0.27753)), (10, 10, (0.72247, 1.0)), (1, 1, (0.20654, 1.0))],
)
def test_wilson(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-5)


def test_wilson_is_scipys() -> None:
    for successes, n in ((0, 7), (3, 7), (450, 500)):
        found = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((found.low, found.high))


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
    assert (ties.rate, ties.p) == (0.5, 1.0)
    assert ties.low < 0.5 < ties.high
    even = win_rate([[WIN], [LOSS]] * 100)
    assert (even.rate, even.p) == (0.5, 1.0)
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
    ten = win_rate([[outcome] * 10 for outcome in outcomes])
    assert (ten.low, ten.high) == wilson(24, 40)
    pooled = wilson(240, 400)
    assert ten.high - ten.low > 2 * (pooled[1] - pooled[0])


def test_a_judge_may_give_probabilities() -> None:
    found = win_rate([[0.9], [0.6], [0.5], [0.2]])
    assert found.rate == pytest.approx(0.55)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)


@pytest.mark.parametrize("outcomes", [[], [[]], [[WIN], []]])
def test_nothing_to_compare_is_refused(outcomes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one comparison"):
        win_rate(outcomes)


@pytest.mark.parametrize("outcome", [2.0, -1.0, 1.0001, float("nan")])
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
    assert (detectable(785), detectable(197), detectable(150), detectable(1)) == (0.55, 0.6, 0.615, 1.0)
    assert detectable(784) > 0.55


def test_so_many_prompts_have_the_power_that_is_claimed() -> None:
    """Of 4,000 simulated evaluations with a true rate of .6 on 197 prompts, 80 % leave one half outside."""
    wins = np.random.default_rng(0).random((4000, 197)) < 0.6
    assert (p_value(wins) < 0.05).mean() == pytest.approx(0.8, abs=0.025)


def test_figures_are_named_for_the_result_file() -> None:
    names = set(win_rate([[WIN], [LOSS]]).figures())
    assert names == {"", "_low", "_high", "_wins", "_ties", "_losses", "_n", "_p"}


# ---- differences ------------------------------------------------------------------------------------------------


def test_a_difference_is_that_of_the_rates_and_keeps_prompts_together() -> None:
    """Both win the same easy prompts; the first wins 6 of 60 more. Unpaired, that would drown in the prompts' noise."""
    second = [[WIN]] * 27 + [[LOSS]] * 33
    first = [[WIN]] * 33 + [[LOSS]] * 27
    found = paired_difference(first, second)
    assert (found.difference, found.n) == (pytest.approx(0.1), 60)
    assert found.low > 0
    assert found.p < 0.05
    shuffled = paired_difference(first[::-1], second)  # other prompts: the same rates, and nothing is shown
    assert shuffled.difference == pytest.approx(0.1)
    assert shuffled.low < 0 < shuffled.high


def test_a_difference_has_a_sign_and_an_opposite() -> None:
    first, second = [[WIN], [TIE], [LOSS], [WIN]] * 5, [[LOSS], [WIN], [LOSS], [TIE]] * 5
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there.p == pytest.approx(back.p)


def test_no_difference_at_all_has_a_width() -> None:
    """60 prompts, no difference on any: a share of u = 3.84/(60 + 3.84) that differ may have been missed."""
    same = [[WIN], [LOSS]] * 30
    found = paired_difference(same, same)
    assert (found.difference, found.p) == (0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-0.0602, 0.0602), abs=1e-4)


def test_samples_may_differ_in_number_but_not_prompts() -> None:
    assert paired_difference([[WIN, LOSS], [WIN]], [[TIE], [TIE]]).difference == pytest.approx(0.25)
    with pytest.raises(ValueError, match="same prompts on both sides, got 1 and 2"):
        paired_difference([[WIN]], [[WIN], [LOSS]])


# ---- several comparisons ----------------------------------------------------------------------------------------


def test_holm() -> None:
    """3 · .01, 2 · .03, and never below the one before: 1 · .04 < .06. Names keep their order."""
    assert holm({"c": 0.04, "a": 0.01, "b": 0.03}) == pytest.approx({"c": 0.06, "a": 0.03, "b": 0.06})
    assert holm({"a": 0.4, "b": 0.9}) == pytest.approx({"a": 0.8, "b": 0.9})
    assert holm({"a": 0.6, "b": 0.7}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({}) == {}


def test_a_family_is_held_to_more_than_one_comparison_is() -> None:
    """60 of 100 alone has p = .0455 (z = 2); among three that show nothing it doesn't stand, 75 of 100 does."""
    weak, strong, even = ([[WIN]] * wins + [[LOSS]] * (100 - wins) for wins in (60, 75, 50))
    assert win_rate(weak).p == pytest.approx(2 * stats.norm.sf(2))
    found = adjusted({"weak": weak, "strong": strong, "even": even})
    assert found == pytest.approx({"weak": 2 * 0.0455003, "strong": 3 * 2 * stats.norm.sf(5), "even": 1.0}, rel=1e-4)


def test_chance_is_rarely_taken_for_a_find_among_twenty() -> None:
    """20 comparisons of equals, 300 times: unadjusted two in three families claim something, adjusted one in 20."""
    wins = np.random.default_rng(1).random((300, 20, 101)) < 0.5
    p = p_value(wins)
    assert (p.min(1) < 0.05).mean() > 0.55
    assert np.mean([min(holm(dict(enumerate(row))).values()) < 0.05 for row in p.tolist()]) < 0.09  # type: ignore[arg-type]


# ---- slices -----------------------------------------------------------------------------------------------------


def test_slices_are_win_rates_and_small_ones_are_put_together() -> None:
    outcomes = [[WIN]] * 12 + [[LOSS]] * 11 + [[TIE], [WIN], [LOSS]]
    labels = [*["math"] * 12, *["code"] * 11, "poems", "maps", None]
    found = by_slice(outcomes, labels)
    assert list(found) == ["code", "math", TOO_FEW]
    assert {label: (rate.rate, rate.n) for label, rate in found.items()} == {
        "math": (1.0, 12),
        "code": (0.0, 11),
        TOO_FEW: (0.75, 2),
    }
    assert asdict(found["math"]) == asdict(win_rate([[WIN]] * 12))
    assert list(by_slice(outcomes, labels, minimum=1)) == ["code", "maps", "math", "poems"]
    with pytest.raises(ValueError, match="zip"):
        by_slice(outcomes, labels[:-1])


def test_length_bands_hold_about_as_many_each_and_sort_as_numbers() -> None:
    lengths = [8, 9, 10, 11, 99, 100, 101, 102]
    bands = length_bands(lengths)
    assert bands == ["8–9", "8–9", "10–11", "10–11", "99–100", "99–100", "101–102", "101–102"]
    assert list(by_slice([[WIN]] * 8, bands, minimum=2)) == ["8–9", "10–11", "99–100", "101–102"]


def test_equal_lengths_share_a_band() -> None:
    assert length_bands([5, 5, 5]) == ["5"] * 3
    assert length_bands([1, 1, 1, 1, 9]) == ["1"] * 4 + ["9"]
    assert length_bands([3, 1, 2], bands=2) == ["3", "1–2", "1–2"]
