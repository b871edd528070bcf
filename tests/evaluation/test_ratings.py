"""Bradley–Terry ratings against answers known in closed form, and where there is no finite one."""

import numpy as np
import pytest
from scipy.special import expit

from pipeline.evaluation.ratings import SCALE, RatingError, ratings


def games(wins: int, losses: int, ties: int = 0) -> list[list[float]]:
    return [[1.0]] * wins + [[0.5]] * ties + [[0.0]] * losses


THREE = {("A", "B"): games(30, 10), ("B", "C"): games(24, 16), ("A", "C"): games(36, 4)}


def test_three_systems() -> None:
    """θ = (1.853505, .555721, 0), made by an independent maximisation."""
    found = ratings(THREE, anchor="C", resamples=10)
    assert list(found) == ["A", "B", "C"]
    theta = [(found[name].rating - 1000) / SCALE for name in "ABC"]
    assert theta == pytest.approx((1.853505, 0.555721, 0), abs=2e-6)
    assert {rating.caveat for rating in found.values()} == {""}


def test_at_the_maximum_expected_wins_are_the_wins() -> None:
    """Σ_j n_ij σ(θ_i − θ_j) = wins of i: 66, 34 and 20."""
    theta = {name: rating.rating / SCALE for name, rating in ratings(THREE, resamples=10).items()}
    for name, wins in (("A", 66), ("B", 34), ("C", 20)):
        assert sum(40 * expit(theta[name] - theta[other]) for other in "ABC" if other != name) == pytest.approx(wins)


def test_75_percent_is_190_85_points() -> None:
    found = ratings({("x", "y"): games(30, 10)}, resamples=10)
    assert found["x"].rating - found["y"].rating == pytest.approx(190.85, abs=0.005)
    assert found["x"].rating + found["y"].rating == pytest.approx(2000)  # the mean is at 1000


def test_ties_are_half_a_win_and_samples_a_share_of_one() -> None:
    ties = ratings({("x", "y"): games(20, 0, ties=20)}, resamples=10)
    samples = ratings({("x", "y"): [[1.0, 0.5, 1.0, 0.5]] * 40}, resamples=10)
    for found in (ties, samples):
        assert found["x"].rating - found["y"].rating == pytest.approx(190.85, abs=0.005)


def test_the_order_of_names_in_a_pair_does_not_matter() -> None:
    turned = {("B", "A"): games(10, 30), ("C", "B"): games(16, 24), ("A", "C"): games(36, 4)}
    found, same = ratings(turned, resamples=10), ratings(THREE, resamples=10)
    assert {name: r.rating for name, r in found.items()} == pytest.approx({name: r.rating for name, r in same.items()})


def test_systems_that_never_met_are_joined_by_others() -> None:
    """75 % and 75 % again: 90 % between A and C, 2 · 190.85 points."""
    found = ratings({("A", "B"): games(30, 10), ("B", "C"): games(30, 10)}, resamples=10)
    assert found["A"].rating - found["C"].rating == pytest.approx(2 * 190.85, abs=0.01)


def test_the_interval_is_about_that_of_the_win_rate() -> None:
    """Half-width for 200 of 400: 1.96 · SD of logit p = 1.96 · √(4/400) = .196, half of it a system's: 17 points."""
    found = ratings({("x", "y"): games(200, 200)}, resamples=1000)
    for rating in found.values():
        assert (rating.low, rating.high) == pytest.approx((1000 - 17, 1000 + 17), abs=2.5)


def test_a_prompt_is_resampled_with_all_its_comparisons() -> None:
    """A and B against C alike on every prompt: between A and B there is nothing to be unsure of."""
    alike = games(30, 10)
    together = ratings({("A", "C"): alike, ("B", "C"): alike}, anchor="A", resamples=200)
    apart = ratings({("A", "C"): alike, ("B", "C"): alike[::-1]}, anchor="A", resamples=200)
    assert together["B"].high - together["B"].low < 1e-3
    assert apart["B"].high - apart["B"].low > 100


def test_many_systems_are_put_in_their_order() -> None:
    rng = np.random.default_rng(0)
    theta = dict(zip("abcdef", np.linspace(1, -1, 6), strict=True))
    comparisons = {
        (a, b): (rng.random((300, 1)) < expit(theta[a] - theta[b])).astype(float).tolist()
        for a in theta
        for b in theta
        if a < b
    }
    found = ratings(comparisons, resamples=50)
    assert list(found) == list("abcdef")
    for name, rating in found.items():
        assert (rating.rating - 1000) / SCALE == pytest.approx(theta[name], abs=0.2)
        assert rating.low < rating.rating < rating.high


# ---- no finite maximum ------------------------------------------------------------------------------------------


def test_a_system_that_won_everything_gets_a_finite_rating_that_says_so() -> None:
    """40 : 0 with half a win each way added is 40.5 : .5; the interval is near Jeffreys', Beta(40.5, .5)."""
    found = ratings({("x", "y"): games(40, 0)}, resamples=2000)
    x, y = found["x"], found["y"]
    assert x.rating - y.rating == pytest.approx(400 * np.log10(81))
    assert (x.caveat, y.caveat) == ("won everything", "lost everything")
    assert expit(2 * (x.low - 1000) / SCALE) == pytest.approx(0.9397, abs=0.01)
    assert x.low < x.rating < x.high < 4000


def test_those_beside_it_are_told_apart() -> None:
    found = ratings({("A", "B"): games(40, 0), ("B", "C"): games(20, 20), ("A", "C"): games(40, 0)}, resamples=20)
    assert {name: rating.caveat for name, rating in found.items()} == {
        "A": "won everything",
        "B": "apart",
        "C": "apart",
    }
    assert found["B"].rating == pytest.approx(found["C"].rating)


def test_a_group_that_won_everything_is_noticed() -> None:
    """Nobody won or lost everything, and still the distance between the two groups has no maximum."""
    found = ratings({("A", "B"): games(20, 20), ("C", "D"): games(20, 20), ("A", "C"): games(40, 0)}, resamples=20)
    assert {rating.caveat for rating in found.values()} == {"apart"}
    assert all(np.isfinite([rating.low, rating.high]).all() for rating in found.values())


def test_resamples_without_a_maximum_do_not_spoil_the_interval() -> None:
    """One loss in 12: a third of the resamples hold none."""
    found = ratings({("x", "y"): games(11, 1)}, resamples=200)
    assert found["x"].caveat == ""
    assert found["x"].low < found["x"].rating < found["x"].high < 3000


@pytest.mark.parametrize(
    ("comparisons", "message"),
    [
        ({}, "at least one pair"),
        ({("A", "A"): games(1, 1)}, "A is compared with itself"),
        ({("A", "B"): [[], []]}, "A vs B has no comparison"),
        ({("A", "B"): games(1, 1), ("B", "C"): games(1, 2)}, "same prompts .*A vs B 2, B vs C 3"),
        ({("A", "B"): games(1, 1), ("C", "D"): games(2, 0)}, "no comparison joins these groups.*: A, B; C, D"),
    ],
)
def test_what_has_no_common_scale_is_refused(comparisons: dict, message: str) -> None:
    with pytest.raises(RatingError, match=message):
        ratings(comparisons)


def test_an_anchor_must_be_there_and_outcomes_be_outcomes() -> None:
    with pytest.raises(RatingError, match="'D' is none of A, B, C"):
        ratings(THREE, anchor="D")
    with pytest.raises(ValueError, match="outcomes are 1"):
        ratings({("A", "B"): [[2.0]]})


def test_prompts_that_a_pair_was_not_compared_on_count_for_nothing() -> None:
    padded = {pair: [*outcomes, [], []] for pair, outcomes in THREE.items()}
    found, same = ratings(padded, resamples=10), ratings(THREE, resamples=10)
    assert {name: r.rating for name, r in found.items()} == pytest.approx({name: r.rating for name, r in same.items()})
