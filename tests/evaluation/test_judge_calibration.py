"""A judge against labels, from verdicts that a reader can count."""

from collections.abc import Sequence

import pytest

from pipeline.data.schema import Message
from pipeline.evaluation.judge_calibration import calibrate
from pipeline.evaluation.judges.protocol import Answer, ByScore, Verdict, both_orders
from pipeline.evaluation.judges.rubric import LengthScorer
from pipeline.evaluation.statistics import wilson

TIE = Verdict(0.5)
ASKED: tuple[Message, ...] = ({"role": "user", "content": "Well?"},)


def answer(tokens: int, text: str = "x") -> Answer:
    return Answer(ASKED, text, [1], [0] * tokens, True)


class Scripted:
    """Says what it was told to, of labelled pairs; of the same against the same, one half."""

    name = "scripted"

    def __init__(self, *verdicts: Verdict, itself: Verdict = TIE) -> None:
        self._verdicts, self._itself = verdicts, itself

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        found = iter(self._verdicts)
        return [self._itself if first is second else next(found) for first, second in pairs]


def prompts(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_agreement_with_one_decided_pair_a_prompt_has_wilsons_interval() -> None:
    verdicts = [Verdict(1.0)] * 6 + [Verdict(0.0)] * 4
    found = calibrate(Scripted(*verdicts), [(answer(2), answer(1))] * 10, prompts(10))
    assert (found["agreement"], found["right"], found["ties"], found["wrong"]) == (0.6, 6, 0, 4)
    assert (found["agreement_low"], found["agreement_high"]) == wilson(6, 10)
    assert found["same_vs_same"] == 0.5


def test_a_tie_counts_half_and_what_has_no_verdict_not_at_all() -> None:
    verdicts = [Verdict(1.0), Verdict(0.5), Verdict(None), Verdict(0.0), Verdict(1.0)]
    found = calibrate(Scripted(*verdicts), [(answer(2), answer(1))] * 5, prompts(5))
    assert found["agreement"] == pytest.approx(2.5 / 4)
    assert (found["pairs"], found["without_verdict"]) == (5, 1)
    assert found["agreement_low"] < 2.5 / 4 < found["agreement_high"]


def test_a_prompt_with_several_pairs_counts_once() -> None:
    verdicts = [Verdict(1.0)] * 9 + [Verdict(0.0)]
    found = calibrate(Scripted(*verdicts), [(answer(2), answer(1))] * 10, ["a"] * 9 + ["b"])
    assert (found["agreement"], found["prompts"], found["right"]) == (0.5, 2, 9)


def test_how_much_it_likes_length_beside_the_labels() -> None:
    """Chosen longer in 1 of 4 unequal pairs; the judge decides 3 of them, for the longer one twice."""
    pairs = [(answer(2), answer(1)), (answer(1), answer(2)), (answer(1), answer(3)), (answer(1), answer(4))]
    pairs.append((answer(5), answer(5)))
    verdicts = [Verdict(1.0), Verdict(0.0), Verdict(1.0), Verdict(0.5), Verdict(1.0)]
    found = calibrate(Scripted(*verdicts), pairs, prompts(5))
    assert (found["longer_labels"], found["longer_judge"]) == (1 / 4, pytest.approx(2 / 3))
    assert (found["longer_labels_low"], found["longer_labels_high"]) == wilson(1, 4)
    assert (found["longer_judge_low"], found["longer_judge_high"]) == wilson(2, 3)


def test_the_control_prefers_length_and_nothing_else() -> None:
    pairs = [(answer(2), answer(1)), (answer(1), answer(2)), (answer(3), answer(3))]
    longer, shorter = (calibrate(ByScore(LengthScorer("l", side)), pairs, prompts(3)) for side in ("longer", "shorter"))  # type: ignore[arg-type]
    assert (longer["longer_judge"], shorter["longer_judge"]) == (1.0, 0.0)
    assert longer["agreement"] == shorter["agreement"] == 0.5
    assert "consistency" not in longer


def test_the_same_against_the_same_shows_a_judge_that_doesnt_compare() -> None:
    found = calibrate(Scripted(Verdict(1.0), itself=Verdict(1.0)), [(answer(2), answer(1))], ["a"])
    assert found["same_vs_same"] == 1.0


def test_orders_are_of_the_labelled_pairs_and_costs_of_all_questions() -> None:
    judge = Scripted(both_orders(1.0, 1.0, 2.0), both_orders(1.0, None, 2.0), itself=both_orders(1.0, 0.0, 1.0))
    found = calibrate(judge, [(answer(2), answer(1)), (answer(1), answer(2))], prompts(2))
    assert (found["consistency"], found["calls"], found["unparsable"], found["cost"]) == (1.0, 8, 1, 6.0)
    assert found["first_position"] == pytest.approx((0.5 + 1.0) / 2)


def test_a_judge_that_says_nothing_has_no_shares() -> None:
    mute = both_orders(None, None)
    found = calibrate(Scripted(mute, itself=mute), [(answer(2), answer(1))], ["a"])
    assert found["without_verdict"] == 1
    assert not {"agreement", "right", "longer_judge", "same_vs_same", "consistency"} & set(found)
    assert found["unparsable"] == 4
