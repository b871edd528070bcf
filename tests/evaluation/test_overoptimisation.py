"""Fitted curves against curves that are known, and the exact over-optimisation of three answers."""

import math
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.best_of_n import best_of_n, best_of_n_kl
from pipeline.evaluation.overoptimisation import Curve, caveats, figures, fit, measured_peak

REFERENCE = np.array([0.9, 0.099, 0.001])
GOLD, PROXY = np.array([0.0, 1.0, -2.0]), np.array([0.0, 1.0, 3.0])
KL = np.linspace(0.0, 9.0, 40)


def optimum(beta: float) -> tuple[float, float, float]:
    """KL, gold and proxy of π ∝ π_ref exp(proxy/β), what RL with the KL price β converges to."""
    logits = np.log(REFERENCE) + PROXY / beta
    policy = np.exp(logits - logits.max())
    policy /= policy.sum()
    return float(policy @ np.log(policy / REFERENCE)), float(policy @ GOLD), float(policy @ PROXY)


def known(method: Any, kl: np.ndarray) -> np.ndarray:
    d = np.sqrt(kl)
    spoils = d if method == "best_of_n" else np.log(np.maximum(d, 1e-300))
    return 0.3 + d * (1.2 - 0.5 * spoils)


def test_three_answers_peak_where_the_algebra_says() -> None:
    """A sweep of β: gold peaks at β = .806 with .20226, KL .2008, while the proxy only rises; at β = .5 gold is below
    its start and the proxy at .9542."""
    betas = np.geomspace(0.3, 30, 4000)
    kl, gold, proxy = np.array([optimum(beta) for beta in betas]).T
    place, peak = measured_peak(kl.tolist(), gold.tolist())
    assert betas[place] == pytest.approx(0.806, abs=1e-3)
    assert peak.score == pytest.approx(0.20226, abs=1e-5)
    assert peak.kl == pytest.approx(0.2008, abs=5e-4)
    assert peak.inside
    assert not measured_peak(kl.tolist(), proxy.tolist())[1].inside
    assert optimum(0.5)[1:] == pytest.approx((-0.0370, 0.9542), abs=1e-4)


def test_the_fitted_curve_finds_the_turn_of_three_answers() -> None:
    """The form isn't this toy's own, so its peak is near, not exact: gold .195 at KL .10. The proxy's lies outside."""
    kl, gold, proxy = np.array([optimum(beta) for beta in np.geomspace(0.45, 30, 60)]).T
    curve = fit(kl, gold, "rl")
    assert curve is not None
    assert curve.peak is not None
    assert curve.peak.inside
    assert curve.peak.score == pytest.approx(0.20226, abs=0.04)
    assert 0.08 < curve.peak.kl < 0.4
    rising = fit(kl, proxy, "rl")
    assert rising is not None
    assert rising.peak is None or not rising.peak.inside


@pytest.mark.parametrize(("method", "peak_d"), [("best_of_n", 1.2), ("rl", math.exp(1.4))])
def test_a_known_curve_is_found_exactly(method: Any, peak_d: float) -> None:
    curve = fit(KL, known(method, KL), method)
    assert curve is not None
    assert (curve.level, curve.alpha, curve.beta) == pytest.approx((0.3, 1.2, 0.5))
    assert (curve.alpha_se, curve.beta_se) == pytest.approx((0, 0), abs=1e-9)
    assert (curve.points, curve.largest_kl) == (40, 9.0)
    assert curve.at(KL) == pytest.approx(known(method, KL))
    assert curve.peak is not None
    assert curve.peak.kl == pytest.approx(peak_d**2)
    top = np.linspace(0, 40, 100_001)
    assert curve.peak.score == pytest.approx(known(method, top).max())
    assert curve.peak.inside == (peak_d**2 <= 9)


def test_standard_errors_are_those_of_repeated_measurements() -> None:
    """Eight points, three of which the fitted numbers take up."""
    rng, few = np.random.default_rng(0), KL[::5]
    found = [fit(few, known("rl", few) + rng.normal(0, 0.2, len(few)), "rl") for _ in range(600)]
    curves = [curve for curve in found if curve is not None]
    for name in ("alpha", "beta"):
        spread = np.std([getattr(curve, name) for curve in curves])
        assert np.mean([getattr(curve, f"{name}_se") for curve in curves]) == pytest.approx(spread, rel=0.1)


def test_points_of_one_prompt_are_no_new_evidence() -> None:
    """Best of n at sixteen n comes from the same sixteen answers. Residuals of the mean curve are tiny; the spread over
    prompts is what another set of prompts would show."""
    rng = np.random.default_rng(0)
    sizes = range(1, 17)
    kl = np.array([best_of_n_kl(n) for n in sizes])

    def curve(prompts: int) -> Curve:
        scores = rng.normal(size=(prompts, 16)) + rng.normal(size=(prompts, 1))
        found = fit(kl, best_of_n(scores, scores, sizes), "best_of_n")
        assert found is not None
        return found

    curves = [curve(30) for _ in range(200)]
    spread = np.std([one.alpha for one in curves])
    assert np.mean([one.alpha_se for one in curves]) == pytest.approx(spread, rel=0.15)
    scores = rng.normal(size=(30, 16))
    mean = fit(kl, best_of_n(scores, scores, sizes).mean(0), "best_of_n")
    assert mean is not None
    assert mean.alpha_se < spread / 3


def test_negative_estimates_of_kl_count_as_none() -> None:
    noisy = np.concatenate([[-0.02], KL])
    curve = fit(noisy, np.concatenate([[0.3], known("rl", KL)]), "rl")
    assert curve is not None
    assert (curve.alpha, curve.points) == (pytest.approx(1.2), 40)


def test_too_few_points_give_no_curve() -> None:
    assert fit(np.array([0.0, 1, 2]), np.array([0.0, 1, 1]), "rl") is None
    assert fit(np.array([1.0] * 50 + [-1, 0, 2]), np.zeros(53), "rl") is None  # three different distances
    assert figures(None) == {"caveats": ["there are too few different distances to fit a curve to, which takes four"]}


def curve(**changes: Any) -> Curve:
    plain: dict[str, Any] = {"method": "rl", "level": 0.0, "alpha": 1.0, "beta": 0.5, "alpha_se": 0.1, "beta_se": 0.1}
    return Curve(**plain | {"points": 20, "largest_kl": 20.0} | changes)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"points": 5}, "fitted to 5 distances only"),
        ({"beta_se": 0.3}, "isn't shown: β = 0.5 ± 0.3"),
        ({"largest_kl": 2.0}, "at KL 7.39, lies beyond what was measured (KL 2)"),
        ({"beta": -0.1}, "has no peak"),
        ({"method": "best_of_n", "alpha": -0.1}, "has no peak"),
    ],
)
def test_what_a_curve_does_not_show_is_said(change: dict[str, Any], part: str) -> None:
    assert caveats(curve()) == []
    (found,) = caveats(curve(**change))
    assert part in found


def test_a_peak_at_the_horizon_is_no_overflow() -> None:
    steep = curve(alpha=1.0, beta=1e-9)
    assert steep.peak is not None
    assert math.isfinite(steep.peak.kl)
    assert not steep.peak.inside


def test_figures_for_a_result() -> None:
    found = figures(curve())
    assert found["method"] == "rl"
    assert found["peak_kl"] == pytest.approx(math.exp(2))
    assert found["peak_score"] == pytest.approx(0.5 * math.exp(1))
    assert found["peak_inside"] is True
    assert (found["line"][0], found["line"][-1][0]) == ([0.0, 0.0], 20.0)
    assert found["line"][-1][1] == pytest.approx(curve().at(np.array([20.0]))[0], abs=1e-4)
    assert "peak_kl" not in figures(curve(beta=-1.0))


def test_a_measured_peak_at_the_edge_is_none() -> None:
    assert measured_peak([1.0, 2.0, 3.0], [0.1, 0.5, 0.2]) == (1, measured_peak([2.0, 1.0, 3.0], [0.5, 0.0, 0.1])[1])
    assert not measured_peak([1.0, 2.0, 3.0], [0.1, 0.2, 0.5])[1].inside
    assert not measured_peak([2.0], [0.1])[1].inside
    with pytest.raises(ValueError):
        measured_peak([], [])
