"""Confidence against what came out: by hand, against a known temperature, and against chance."""

import math

import numpy as np
import pytest
from scipy.special import expit

from pipeline.evaluation.calibration import (
    by_margin,
    calibration,
    cross_fitted,
    ece,
    ece_by_chance,
    fit_temperature,
    log_loss,
)

LOGIT_75, LOGIT_95 = math.log(3), math.log(19)  # σ gives .75 and .95


def claims(temperature: float, n: int, seed: int = 0) -> np.ndarray:
    """Δ of pairs whose higher score is right with probability σ(|Δ| / temperature)."""
    rng = np.random.default_rng(seed)
    size = rng.exponential(2.0, n)
    return np.where(rng.random(n) < expit(size / temperature), size, -size)


def test_ece_by_hand() -> None:
    """Four pairs that claim 75 %, of which two are right, and six that claim 95 %, all right:
    ECE = .4·|.5 − .75| + .6·|1 − .95| = .13."""
    differences = np.array([LOGIT_75] * 2 + [-LOGIT_75] * 2 + [LOGIT_95] * 6)
    bands = calibration(differences)
    assert [(band.n, round(band.confidence, 6), band.accuracy) for band in bands] == [(4, 0.75, 0.5), (6, 0.95, 1.0)]
    assert ece(bands) == pytest.approx(0.13)


def test_a_tie_claims_one_half_and_is_wrong() -> None:
    (band,) = calibration(np.zeros(3))
    assert (band.confidence, band.accuracy, band.low) == (0.5, 0.0, 0.0)


def test_full_confidence_has_a_bin() -> None:
    """σ(50) is 1 in float64, on the last bin's upper edge; σ(4) is .98, in the same bin."""
    (band,) = calibration(np.array([50.0, 4.0]))
    assert (band.n, band.smallest, band.largest) == (2, 4.0, 50.0)


def test_log_loss() -> None:
    assert log_loss(np.zeros(5)) == pytest.approx(math.log(2))
    assert log_loss(np.array([LOGIT_75, -LOGIT_75])) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert log_loss(np.array([-1e4])) == 1e4  # no overflow


def test_bands_of_margins_hold_as_many_pairs_each() -> None:
    bands = by_margin(np.array([-1.0, 2, -3, 4, 5, 6, 7, 8, 9, -10]))
    assert [(band.smallest, band.largest, band.n) for band in bands] == [
        (1, 2, 2),
        (3, 4, 2),
        (5, 6, 2),
        (7, 8, 2),
        (9, 10, 2),
    ]
    assert [band.accuracy for band in bands] == [0.5, 0.5, 1, 1, 0.5]


def test_equal_margins_share_a_band() -> None:
    bands = by_margin(np.array([1.0, -1, 1, 1, 1, 1, 1, 2, 2, 3]))
    assert [(band.smallest, band.n) for band in bands] == [(1, 7), (2, 3)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(claims(temperature, 40_000)) == pytest.approx(temperature, rel=0.04)


def test_the_temperature_has_the_least_loss() -> None:
    differences = claims(2.0, 500)
    best = fit_temperature(differences)
    for other in (0.9 * best, 1.1 * best):
        assert log_loss(differences / best) < log_loss(differences / other)


def test_without_a_minimum_the_temperature_is_the_limit() -> None:
    assert fit_temperature(np.array([1.0, 2.0])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(np.array([-1.0, -2.0])) == pytest.approx(20, rel=0.01)


def test_cross_fitting_uses_other_prompts_only() -> None:
    """Two prompts, one fold each: each is scaled by the other's temperature."""
    first, second = claims(1.0, 2000, seed=1), claims(4.0, 2000, seed=2)
    scaled = cross_fitted(np.concatenate([first, second]), ["a"] * 2000 + ["b"] * 2000)
    assert scaled[:2000] == pytest.approx(first / fit_temperature(second))
    assert scaled[2000:] == pytest.approx(second / fit_temperature(first))


def test_pairs_of_a_prompt_share_a_fold() -> None:
    differences = claims(2.0, 300)
    prompts = [str(row // 3) for row in range(300)]
    used = (differences / cross_fitted(differences, prompts)).round(9).reshape(-1, 3)
    assert (used == used[:, :1]).all()
    assert len(np.unique(used)) == 5


def test_cross_fitting_needs_two_prompts() -> None:
    with pytest.raises(ValueError, match="at least two prompts"):
        cross_fitted(np.array([1.0, 2.0]), ["a", "a"])


def test_a_temperature_judged_on_its_own_data_looks_better_than_it_is() -> None:
    """Why cross-fitting is there: over many small samples, the loss on the data that chose T is too low."""
    own, cross = [], []
    for seed in range(40):
        differences = claims(2.0, 40, seed)
        own.append(log_loss(differences / fit_temperature(differences)))
        cross.append(log_loss(cross_fitted(differences, [str(row) for row in range(40)])))
    truth = log_loss(claims(2.0, 200_000, 99) / 2.0)
    assert np.mean(own) < truth < np.mean(cross)


def test_chance_alone_makes_an_error_of_the_expected_size() -> None:
    """Calibrated models of 100 pairs: their mean ECE is what `ece_by_chance` says, and 10,000 pairs show far less."""
    samples = [claims(1.0, 100, seed) for seed in range(100)]
    found = np.mean([ece(calibration(sample)) for sample in samples])
    assert found == pytest.approx(np.mean([ece_by_chance(sample, draws=50) for sample in samples]), rel=0.1)
    assert ece_by_chance(claims(1.0, 10_000)) < found / 5


def test_an_overconfident_model_shows_more_than_chance() -> None:
    differences = claims(3.0, 1000)
    assert ece(calibration(differences)) > 3 * ece_by_chance(differences)
    assert ece(calibration(differences / 3)) < 2 * ece_by_chance(differences / 3)
