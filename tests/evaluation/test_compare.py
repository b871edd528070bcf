"""Choosing and comparing answers with a judge whose scores are known."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.data.schema import Message
from pipeline.evaluation.compare import ask, compare, describe, pick_best
from pipeline.evaluation.judges.protocol import Answer, ByScore, Verdict
from pipeline.evaluation.judges.reward import RewardModelScorer
from pipeline.lm.reward import RewardModel
from tests.lm.builders import noisy, tiny

ASKED: tuple[Message, ...] = ({"role": "user", "content": "Well?"},)


def answer(text: str, *, stopped: bool = True) -> Answer:
    return Answer(ASKED, text, [1], list(range(len(text))), stopped)


class ByLength:
    """The longer the better."""

    name = "length"

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [float(len(a.text)) for a in answers]


def test_best_of_n_takes_the_highest_score_of_each_prompt() -> None:
    """Groups of different sizes: a score must never slip to the next prompt."""
    groups = [[answer("aa"), answer("a"), answer("aaa")], [answer("bbbb")], [answer("c"), answer("cc")]]
    assert [best.text for best in pick_best(groups, ByLength())] == ["aaa", "bbbb", "cc"]


def test_scores_become_verdicts() -> None:
    pairs = [(answer("aa"), answer("a")), (answer("a"), answer("b")), (answer("a"), answer("aa"))]
    assert ByScore(ByLength()).compare(pairs) == [Verdict(1.0), Verdict(0.5), Verdict(0.0)]


def test_samples_are_compared_one_by_one_and_prompts_must_match() -> None:
    first = [[answer("aa"), answer("a")], [answer("b")]]
    second = [[answer("a"), answer("aa")], [answer("c")]]
    found = ask(ByScore(ByLength()), first, second)
    assert [[verdict.outcome for verdict in prompt] for prompt in found] == [[1.0, 0.0], [0.5]]
    with pytest.raises(ValueError, match="zip"):
        ask(ByScore(ByLength()), first, second[:1])


def test_compare_names_pairs_and_leaves_out_absent_systems() -> None:
    lengths = {"sft": [1, 1, 1, 1], "policy": [2, 2, 2, 0], "base": [1, 1, 1, 1]}
    answers = {name: [[answer("a" * n)] for n in found] for name, found in lengths.items()}
    pairs = [("policy", "sft"), ("sft", "policy"), ("sft", "base"), ("best_of_n", "sft")]
    rates = compare(ByScore(ByLength()), answers, pairs, resamples=100, seed=0)
    assert {name: found.rate.rate for name, found in rates.items()} == {
        "policy_vs_sft": 0.75,
        "sft_vs_policy": 0.25,
        "sft_vs_base": 0.5,  # the same against the same
    }


def test_a_comparison_is_controlled_for_length_and_for_there_being_several() -> None:
    """The policy wins by length alone; 12 of 12 twice, p = .00053 (z = √12), is doubled by there being two."""
    lengths = {"sft": range(1, 13), "policy": range(2, 14)}
    answers = {name: [[answer("a" * n)] for n in found] for name, found in lengths.items()}
    pairs = [("policy", "sft"), ("sft", "policy")]
    figures = compare(ByScore(ByLength()), answers, pairs, resamples=50, seed=0)["policy_vs_sft"].figures()
    assert figures["_p"] == pytest.approx(0.00053, abs=1e-5)
    assert figures["_p_holm"] == pytest.approx(2 * figures["_p"])
    assert figures["_length_overlap"] == 0.0
    assert (figures["_length_controlled_low"], figures["_length_controlled_high"]) == (0.0, 1.0)


def test_what_has_no_verdict_counts_for_nobody() -> None:
    class Shy:
        name = "shy"

        def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
            return [Verdict(1.0), *(Verdict(None) for _ in pairs[1:])]

    answers = {name: [[answer("a"), answer("b")], [answer("c")]] for name in ("policy", "sft")}
    rate = compare(Shy(), answers, [("policy", "sft")], resamples=100, seed=0)["policy_vs_sft"].rate
    assert (rate.n, rate.wins, rate.ties, rate.losses) == (1, 1, 0, 0)


def test_describe() -> None:
    answers = {
        "sft": [[answer("a b")], [answer("a", stopped=False)]],
        "policy": [[answer("sure! a"), answer("sure!")]],
    }
    figures = describe(answers, ["a b", "a"])
    assert figures["mean_tokens.sft"] == 2.0
    assert (figures["eos_rate.sft"], figures["eos_rate.policy"]) == (0.5, 1.0)
    assert figures["distinct_1.sft"] == pytest.approx(2 / 3)
    assert {"sure", "!"} <= {row["phrase"] for row in figures["overused.policy"]}
    assert figures["overused.sft"] == []


def test_a_reward_model_judges_prompt_plus_answer_whatever_the_batch(cache: Path) -> None:
    shared = noisy(tiny(cache), "judge", head=True)
    model = RewardModel(shared, "judge")
    answers = [Answer(ASKED, "", [1, 40], [50, 2], True), Answer(ASKED, "", [1], [60, 61, 62], False)]
    expected = [model.scores([a.prompt_ids + a.ids]).item() for a in answers]
    for size in (1, 2):
        judge = RewardModelScorer(model, batch_size=size)
        assert judge.name == "judge"
        assert judge.score(answers) == pytest.approx(expected, abs=1e-5)
