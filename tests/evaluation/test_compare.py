"""Choosing and comparing answers with a judge whose scores are known."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.evaluation.compare import compare, describe, pick_best
from pipeline.evaluation.judges import Answer, RewardModelJudge, outcomes
from pipeline.lm.reward import RewardModel
from tests.lm.builders import noisy, tiny


def answer(text: str, *, stopped: bool = True) -> Answer:
    return Answer([1], list(range(len(text))), text, stopped)


class LengthJudge:
    """The longer the better."""

    name = "length"

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [float(len(a.text)) for a in answers]


def test_best_of_n_takes_the_highest_score_of_each_prompt() -> None:
    """Groups of different sizes: a score must never slip to the next prompt."""
    groups = [[answer("aa"), answer("a"), answer("aaa")], [answer("bbbb")], [answer("c"), answer("cc")]]
    assert [best.text for best in pick_best(groups, LengthJudge())] == ["aaa", "bbbb", "cc"]


def test_outcomes() -> None:
    assert outcomes([2.0, 1.0, 0.0], [1.0, 1.0, 1.0]) == [[1.0], [0.5], [0.0]]
    with pytest.raises(ValueError, match="zip"):
        outcomes([1.0], [1.0, 2.0])


def test_compare_names_pairs_and_leaves_out_absent_systems() -> None:
    scores = {"sft": [1.0, 1.0, 1.0, 1.0], "policy": [2.0, 2.0, 2.0, 0.0], "base": [1.0, 1.0, 1.0, 1.0]}
    pairs = [("policy", "sft"), ("sft", "policy"), ("sft", "base"), ("best_of_n", "sft")]
    rates = compare(scores, pairs, resamples=100, seed=0)
    assert {name: rate.rate for name, rate in rates.items()} == {
        "policy_vs_sft": 0.75,
        "sft_vs_policy": 0.25,
        "sft_vs_base": 0.5,  # the same against the same
    }


def test_describe() -> None:
    answers = {"sft": [answer("a b"), answer("a", stopped=False)], "policy": [answer("sure! a"), answer("sure!")]}
    figures = describe(answers, ["a b", "a"])
    assert figures["mean_tokens.sft"] == 2.0
    assert (figures["eos_rate.sft"], figures["eos_rate.policy"]) == (0.5, 1.0)
    assert figures["distinct_1.sft"] == pytest.approx(2 / 3)
    assert {"sure", "!"} <= {row["phrase"] for row in figures["overused.policy"]}
    assert figures["overused.sft"] == []


def test_a_reward_model_judges_prompt_plus_answer_whatever_the_batch(cache: Path) -> None:
    shared = noisy(tiny(cache), "judge", head=True)
    model = RewardModel(shared, "judge")
    answers = [Answer([1, 40], [50, 2], "", True), Answer([1], [60, 61, 62], "", False)]
    expected = [model.scores([a.prompt_ids + a.ids]).item() for a in answers]
    for size in (1, 2):
        judge = RewardModelJudge(model, batch_size=size)
        assert judge.name == "judge"
        assert judge.score(answers) == pytest.approx(expected, abs=1e-5)
