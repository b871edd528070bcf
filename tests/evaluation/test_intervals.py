"""The interval of a mean over prompts: identities, and whether it covers the truth as often as it says."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.intervals import mean_interval, p_value, tails, wilson
from tests.test_scripts import load

check = load("check_intervals")


def test_wins_and_losses_give_wilsons_interval() -> None:
    assert mean_interval([1] * 60 + [0] * 40) == pytest.approx(wilson(60, 100))
    assert mean_interval([1] * 20) == pytest.approx(wilson(20, 20))


def test_the_effective_number_of_prompts_by_hand() -> None:
    """(1, ½, ½, 0) four times: m = ½, s² = 2/15, n_eff = ¼ · 16 · 15/2 = 30, t(15) = 2.1314; c = t²/30 = .15143."""
    half = np.sqrt(0.15143 * (0.25 + 0.15143 / 4)) / 1.15143
    assert mean_interval([1, 0.5, 0.5, 0] * 4) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_what_is_equal_everywhere_may_have_missed_some() -> None:
    """50 ties: u = 3.8415/53.8415 = .07135 of the prompts could be wins, or losses: ½ ± u/2."""
    assert mean_interval([0.5] * 50) == pytest.approx((0.46433, 0.53567), abs=1e-5)
    assert mean_interval([0.3]) == pytest.approx((0.3 * (1 - 3.84146 / 4.84146), 0.3 + 0.7 * 3.84146 / 4.84146))


def test_many_at_once_are_one_after_the_other() -> None:
    x = np.random.default_rng(0).choice([0, 0.5, 1], size=(3, 4, 20))
    x[0, 0], x[1, 1] = 0.5, np.arange(20) % 2  # the special cases among the others
    low, high = mean_interval(x)
    p = p_value(x)
    assert low.shape == high.shape == p.shape == (3, 4)
    for place in np.ndindex(3, 4):
        assert (low[place], high[place]) == pytest.approx(mean_interval(x[place]))
        assert p[place] == pytest.approx(p_value(x[place]))


@pytest.mark.parametrize("against", [0.5, 0.3])
def test_p_is_below_5_percent_where_the_interval_leaves_it_out(against: float) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.choice([0, 0.5, 1], size=(300, 25), p=[0.3, 0.3, 0.4]),
            (rng.random((300, 25)) < 0.6).astype(float),
            np.repeat(rng.choice([0.2, 0.25, 0.4, 0.6, 0.75, 1], size=(40, 1)), 25, axis=1),
        ]
    )
    low, high = mean_interval(x)
    outside = (low > against) | (high < against)
    assert 50 < outside.sum() < 600
    assert np.array_equal(p_value(x, against=against) < 0.05, outside)


def test_p_of_wins_and_losses_is_the_score_tests_and_near_the_exact_one() -> None:
    assert p_value([1] * 60 + [0] * 40) == pytest.approx(2 * stats.norm.sf(2))
    assert p_value([1] * 540 + [0] * 460) == pytest.approx(stats.binomtest(540, 1000).pvalue, abs=0.002)


def test_tails_reach_further_for_few_prompts() -> None:
    """n = 30: t = 2.0452, · √(30/29) = 2.0802, Φ(−2.0802) = .01876; n → ∞: .025."""
    assert tails(30) == pytest.approx((0.01876, 0.98124), abs=1e-5)
    assert tails(10**6) == pytest.approx((0.025, 0.975), abs=1e-5)


def covered(kind: str, n: int, rates: tuple[float, float], tie: float, samples: tuple[int, float]) -> float:
    rng = np.random.default_rng(7)
    (truth,), (means,) = check.simulate(3000, n, rates, tie, samples, rng)
    plain = check.PLAIN.get(kind)
    low, high = plain(means) if plain else check.bootstraps(means, rng, 500)[kind]
    return float(((low <= truth) & (truth <= high)).mean())


def test_the_interval_covers_the_truth_95_times_in_100() -> None:
    """3,000 simulated evaluations a cell: none may be off by more than 1.5 points."""
    cells = list(product((30, 100, 400), ((0.5, 0.6), (0.8, 0.9)), (0.0, 0.4), ((1, 0.0), (5, 0.3), (-5, 0.7))))
    found = {cell: covered("chosen", *cell) for cell in cells}
    assert {cell: share for cell, share in found.items() if abs(share - 0.95) > 0.015} == {}
    assert np.mean(list(found.values())) == pytest.approx(0.95, abs=0.004)


@pytest.mark.parametrize("kind", ["percentile bootstrap", "t"])
def test_others_do_not(kind: str) -> None:
    assert covered(kind, 30, (0.8, 0.9), 0.0, (5, 0.7)) < 0.93


def test_the_simulation_is_what_it_says() -> None:
    """Rates, the share of ties, and the correlation of two samples of a prompt, from 200,000 prompts."""
    rng = np.random.default_rng(0)
    (rate,), (means,) = check.simulate(1, 200_000, (0.7, 0.7), 0.2, (1, 0.0), rng)
    assert means.mean() == pytest.approx(rate[0], abs=0.005)
    assert (means == 0.5).mean() == pytest.approx(0.2, abs=0.005)
    (one,), (two,) = (check.simulate(1, 200_000, (0.7, 0.7), 0.2, (k, 0.3), rng)[1][0] for k in (1, 2))
    assert 2 * two.var() / one.var() - 1 == pytest.approx(0.3, abs=0.02)  # Var of a mean of two: σ²(1 + ρ)/2
    _, both = check.simulate(1, 200_000, (0.7, 0.7), 0.2, (1, 0.3), rng, systems=2)
    assert np.corrcoef(both[:, 0])[0, 1] == pytest.approx(0.3, abs=0.02)
