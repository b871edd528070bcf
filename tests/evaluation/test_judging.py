"""What verdicts are worth, from verdicts that a reader can count."""

import pytest

from pipeline.evaluation.intervals import wilson
from pipeline.evaluation.judges.protocol import Verdict, both_orders
from pipeline.evaluation.judging import agreement, agreement_over_prompts, order_figures, rate

WIN, TIE, LOSS, NONE = Verdict(1.0), Verdict(0.5), Verdict(0.0), Verdict(None)


def test_the_rate_leaves_out_what_has_no_verdict() -> None:
    found = rate([[WIN, NONE], [NONE], [LOSS], [WIN]])
    assert found is not None
    assert (found.rate, found.wins, found.losses, found.n) == (pytest.approx(2 / 3), 2, 1, 3)
    assert rate([[NONE], [NONE]]) is None


def test_figures_of_the_orders() -> None:
    """Votes for the first shown: pair 1 yes and no, pairs 2 and 3 yes and yes, pair 4 half and half, pair 5 no."""
    verdicts = [
        both_orders(1.0, 1.0, 0.5),
        both_orders(1.0, 0.0, 0.25),
        both_orders(1.0, 0.0, 0.25),
        both_orders(0.5, 0.5, 0.0),
        both_orders(0.0, None, 1.0),
    ]
    figures = order_figures([[verdict] for verdict in verdicts])
    assert (figures["calls"], figures["unparsable"]) == (10, 1)
    assert figures["consistency"] == pytest.approx(2 / 4)
    assert figures["first_position"] == pytest.approx((0.5 + 1 + 1 + 0.5 + 0) / 5)  # each prompt counts once
    assert figures["first_position_low"] < 0.6 < figures["first_position_high"]
    assert figures["cost"] == 2.0


def test_a_judge_that_knows_no_order_has_no_such_figures() -> None:
    assert order_figures([[WIN], [TIE], [NONE]]) == {}


def test_a_judge_that_said_nothing_has_no_shares() -> None:
    assert order_figures([[both_orders(None, None)]]) == {"calls": 2, "unparsable": 2}


def test_agreement_is_over_what_both_decide() -> None:
    """Six decided by both: 3 × both win, 1 × both lose, 2 × differ. p = 4/6; win rates 5/6 and 3/6:
    e = 5/6 · 3/6 + 1/6 · 3/6 = 1/2; κ = (4/6 − 1/2)/(1 − 1/2) = 1/3."""
    mine = [WIN, WIN, WIN, LOSS, WIN, WIN, TIE, WIN, NONE, LOSS]
    other = [WIN, WIN, WIN, LOSS, LOSS, LOSS, WIN, TIE, LOSS, NONE]
    figures = agreement([mine[:4], mine[4:]], [other[:4], other[4:]])
    assert figures == {"agreement_n": 6, "agreement": pytest.approx(4 / 6), "kappa": pytest.approx(1 / 3)}


def test_a_judge_agrees_with_itself() -> None:
    assert agreement([[WIN, LOSS]], [[WIN, LOSS]]) == {"agreement_n": 2, "agreement": 1.0, "kappa": 1.0}
    assert agreement([[WIN, LOSS]], [[LOSS, WIN]])["kappa"] == -1.0


def test_where_nothing_could_differ_kappa_says_nothing() -> None:
    assert agreement([[WIN, WIN]], [[WIN, WIN]]) == {"agreement_n": 2, "agreement": 1.0}
    assert agreement([[TIE]], [[WIN]]) == {"agreement_n": 0}
    with pytest.raises(ValueError, match="zip"):
        agreement([[WIN]], [[WIN, WIN]])


def test_agreement_over_prompts_has_intervals() -> None:
    """40 prompts, 30 with equal verdicts; .75 and Wilson's interval. A mean of 2/3 of several people counts as decided.
    The first wins 15 + 5 times of 40 by either: e = ½, κ = ½."""
    mine = [[Verdict(2 / 3)]] * 15 + [[LOSS]] * 15 + [[WIN]] * 5 + [[LOSS]] * 5 + [[NONE], [TIE]]
    other = [[WIN]] * 15 + [[LOSS]] * 15 + [[LOSS]] * 5 + [[WIN]] * 5 + [[WIN], [WIN]]
    figures = agreement_over_prompts(mine, other)
    low, high = wilson(30, 40)
    assert {key: figures[key] for key in ("n", "agreement", "agreement_low", "agreement_high", "kappa")} == {
        "n": 40,
        "agreement": 0.75,
        "agreement_low": pytest.approx(low),
        "agreement_high": pytest.approx(high),
        "kappa": pytest.approx(0.5),
    }
    assert 0.1 < figures["kappa_low"] < 0.4 < 0.6 < figures["kappa_high"] < 0.9
    assert agreement_over_prompts([[TIE]], [[WIN]]) == {"n": 0}
