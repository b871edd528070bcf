"""Win rates at equal length, for judges whose taste in length is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.length_control import LengthControlled, fit, length_controlled
from pipeline.evaluation.statistics import win_rate

Judge = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def judged(judge: Judge, n: int = 1000, *, longer: float = 1.3, seed: int = 0) -> tuple[list, list]:
    """Outcomes and differences of a system whose answers are longer by 130 ± 100 characters."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(100 * longer, 100, n)
    return [[float(y)] for y in judge(differences / 100, rng)], differences[:, None].tolist()


def test_a_judge_that_only_loves_length_gives_one_half() -> None:
    """The policy wins nearly 90 % by being longer, and half of it at equal length."""
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < expit(4 * z), n=4000)
    assert win_rate(outcomes).rate == pytest.approx(0.88, abs=0.02)
    found = length_controlled(outcomes, differences, resamples=200)
    assert found.rate == pytest.approx(0.5, abs=0.06)
    assert found.low < 0.5 < found.high
    assert found.slope > 2
    assert not found.separated
    assert found.overlap == pytest.approx(0.097, abs=0.01)  # Φ(−1.3)


def test_a_judge_that_is_blind_to_length_gives_the_rate_back() -> None:
    outcomes, differences = judged(lambda z, rng: rng.choice([1.0, 0.5, 0.0], p=[0.6, 0.2, 0.2], size=len(z)), n=4000)
    raw, found = win_rate(outcomes), length_controlled(outcomes, differences, resamples=200)
    assert found.rate == pytest.approx(raw.rate, abs=0.03)
    assert found.low < raw.rate < found.high
    assert found.slope == pytest.approx(0, abs=0.1)


def test_a_judge_that_loves_both_is_told_apart() -> None:
    """P(win) = σ(1 + 2z): σ(1) = .731 at equal length."""
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < expit(1 + 2 * z), n=3000)
    found = length_controlled(outcomes, differences, resamples=200)
    assert found.rate == pytest.approx(expit(1), abs=0.04)
    assert found.low < expit(1) < found.high


def test_the_unit_of_length_does_not_matter_and_sides_mirror() -> None:
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < expit(1 + z), n=100)
    one = length_controlled(outcomes, differences, resamples=50)
    kilo = length_controlled(outcomes, [[1000 * d for d in row] for row in differences], resamples=50)
    assert (kilo.rate, kilo.low, kilo.slope) == pytest.approx((one.rate, one.low, one.slope))
    mirror = length_controlled([[1 - y for y in row] for row in outcomes], [[-d for d in row] for row in differences])
    assert (mirror.rate, mirror.slope) == pytest.approx((1 - one.rate, one.slope))


def test_a_tie_is_half_a_win_and_half_a_loss() -> None:
    """Ties at equal length: σ(α) = ½ whatever else, by symmetry; as a win and a loss of the same prompt do."""
    differences = [[0.0, 0.0], [5.0, 5.0], [-5.0, -5.0]]
    ties = length_controlled([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]], differences, resamples=20)
    both = length_controlled([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], differences, resamples=20)
    assert ties == both
    assert ties.rate == pytest.approx(0.5)


def test_a_prompt_weighs_one_however_often_it_is_judged() -> None:
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < expit(1 + z), n=60)
    often = [row * (10 if i % 3 else 1) for i, row in enumerate(outcomes)]
    lengths = [row * (10 if i % 3 else 1) for i, row in enumerate(differences)]
    spread = np.std(differences) / np.std(np.concatenate(lengths))  # the unit of the slope, not what is fitted
    once, found = (length_controlled(*rows, resamples=20) for rows in ((outcomes, differences), (often, lengths)))
    assert found.rate == pytest.approx(once.rate, abs=0.01)
    assert found.slope * spread == pytest.approx(once.slope, abs=0.05)
    assert found.high - found.low == pytest.approx(once.high - once.low, rel=0.1)


# ---- where a fit would pretend to know --------------------------------------------------------------------------


def test_where_the_sign_of_the_difference_tells_every_outcome_nothing_is_known() -> None:
    """Any threshold between the longest loss and the shortest win fits: any rate at equal length."""
    outcomes, differences = judged(lambda z, rng: z > 0, n=200)
    found = length_controlled(outcomes, differences)
    assert found.separated
    assert (found.low, found.high) == (0.0, 1.0)
    assert 0.1 < found.rate < 0.9
    shorter = length_controlled([[1 - y for y in row] for row in outcomes], differences)
    assert (shorter.separated, shorter.low, shorter.high) == (True, 0.0, 1.0)


def test_one_answer_of_equal_length_is_something_to_go_by() -> None:
    """Longer wins, and of equal length it lost: no longer anything at all."""
    found = length_controlled([[1.0]] * 10 + [[0.0]], [[float(i)] for i in range(10, 0, -1)] + [[0.0]], resamples=100)
    assert not found.separated
    assert 0.05 < found.low < found.rate


def test_always_longer_and_always_better_is_known_of_neither() -> None:
    found = length_controlled([[1.0]] * 40, [[float(10 + i)] for i in range(40)])
    assert (found.rate, found.low, found.high, found.overlap) == (1.0, 0.0, 1.0, 0.0)
    assert (found.separated, found.extrapolated) == (True, True)


def test_better_whatever_the_length_is_the_rate_without_control() -> None:
    outcomes, raw = [[1.0]] * 40, win_rate([[1.0]] * 40)
    for differences in ([[float(i - 20)] for i in range(40)], [[0.0]] * 40, [[7.0]] * 20 + [[-7.0]] * 20):
        found = length_controlled(outcomes, differences)
        assert (found.rate, found.low, found.high, found.separated) == (1.0, raw.low, 1.0, False)


def test_one_length_for_all_leaves_nothing_to_control() -> None:
    outcomes = [[1.0]] * 30 + [[0.0]] * 10
    raw, found = win_rate(outcomes), length_controlled(outcomes, [[0.0]] * 40)
    assert (found.rate, found.low, found.high) == pytest.approx((raw.rate, raw.low, raw.high))
    assert (found.overlap, found.extrapolated) == (1.0, False)


def test_separation_elsewhere_stays_finite() -> None:
    """Wins from 150 characters more on: the slope of plain maximum likelihood is infinite."""
    outcomes, differences = judged(lambda z, rng: z > 1.5, n=200)
    found = length_controlled(outcomes, differences, resamples=100)
    assert 2 < found.slope < 50
    assert found.high < 0.05


def test_an_overlap_that_hardly_is_one_is_told() -> None:
    """σ at 3 deviations from the data: the interval is wide, and the figure says why."""
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < 0.7, n=200, longer=3.0)
    found = length_controlled(outcomes, differences, resamples=200)
    assert found.overlap < 0.01
    assert found.extrapolated
    assert found.high - found.low > 0.3


# ---- the fit ----------------------------------------------------------------------------------------------------


def test_the_prior_moves_little() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0.5, 1, 800)
    y = (rng.random(800) < expit(0.5 + z)).astype(float)
    alpha, beta = fit(z, y, np.ones((1, 800)))[0]
    plain = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(z[:, None], y)
    assert expit(alpha) == pytest.approx(expit(plain.intercept_[0]), abs=5e-4)
    assert beta == pytest.approx(plain.coef_[0, 0], abs=3e-3)


def test_a_resample_of_wins_only_is_certain() -> None:
    z, y = np.array([1.0, -1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    alpha = fit(z, y, np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))[:, 0]
    assert (alpha[0], alpha[1]) == (np.inf, -np.inf)
    assert np.isfinite(alpha[2])


def test_thirds_and_fifths_that_add_up_to_all_are_all() -> None:
    """A resample of wins only, of samples that weigh 1/3 or 1/5: no rounding makes it nearly certain."""
    outcomes = [[1.0] * size for size in (3, 5, 3, 5, 3, 3, 5)] + [[0.0, 1.0, 0.0]]
    rng = np.random.default_rng(0)
    found = length_controlled(outcomes, [rng.normal(0, 1, len(row)).tolist() for row in outcomes], resamples=500)
    assert 0.5 < found.low < found.rate < found.high <= 1


def test_many_resamples_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes, differences = judged(lambda z, rng: rng.random(len(z)) < expit(z), n=50)
    whole = length_controlled(outcomes, differences, resamples=100)
    monkeypatch.setattr("pipeline.evaluation.length_control.CELLS", 50 * 7)
    parts = length_controlled(outcomes, differences, resamples=100)
    assert (parts.rate, parts.low, parts.high) == pytest.approx((whole.rate, whole.low, whole.high))


def test_the_bootstrap_has_a_seed() -> None:
    rows = judged(lambda z, rng: rng.random(len(z)) < expit(z), n=40)
    assert length_controlled(*rows, resamples=50, seed=1) == length_controlled(*rows, resamples=50, seed=1)
    assert length_controlled(*rows, resamples=50, seed=1) != length_controlled(*rows, resamples=50, seed=2)


def test_each_outcome_has_its_difference() -> None:
    with pytest.raises(ValueError, match="one difference in length for each outcome"):
        length_controlled([[1.0], [0.0, 1.0]], [[3.0], [2.0]])
    with pytest.raises(ValueError, match="at least one comparison"):
        length_controlled([], [])


def test_figures_are_named_for_the_result_file() -> None:
    found = LengthControlled(rate=0.6, low=0.5, high=0.7, slope=1.0, overlap=0.4, separated=False)
    assert found.figures() == {
        "_length_controlled": 0.6,
        "_length_controlled_low": 0.5,
        "_length_controlled_high": 0.7,
        "_length_overlap": 0.4,
    }
