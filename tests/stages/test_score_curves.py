"""What a policy stage says of gaining and gaming, from the figures of its steps."""

import numpy as np
import pytest

from pipeline.stages.policy_log import curves


def history(steps: int, *, judge: bool = True) -> list[dict[str, float]]:
    """The reward model's score rises all the way, the judge's turns down at KL exp(2·(1.0/0.6 − 1)) = 3.8."""
    rows = []
    for kl in np.linspace(0, 12, steps).tolist():
        d = kl**0.5
        spoilt = d * float(np.log(d)) if d else 0.0
        rows.append({"objective/kl": kl, "objective/score": 0.2 + 0.7 * d, "objective/judge": 1.0 * d - 0.6 * spoilt})
        if not judge:
            del rows[-1]["objective/judge"]
    return rows


def test_the_judges_turn_is_found() -> None:
    found = curves(history(20))
    assert found["curve.judge.peak_kl"] == pytest.approx(np.exp(2 * (1 / 0.6 - 1)))
    assert found["curve.judge.peak_inside"] is True
    assert found["curve.judge.caveats"] == []
    assert (found["curve.judge.alpha"], found["curve.judge.beta"]) == pytest.approx((1.0, 0.6))
    assert found["curve.reward.level"] == pytest.approx(0.2)
    assert found["curve.reward.caveats"] != []


def test_without_a_judge_there_is_no_curve_of_it() -> None:
    assert not [key for key in curves(history(20, judge=False)) if "judge" in key]


def test_too_few_steps_say_so() -> None:
    found = curves(history(3))
    assert set(found) == {"curve.reward.caveats", "curve.judge.caveats"}
    assert "too few" in found["curve.judge.caveats"][0]
