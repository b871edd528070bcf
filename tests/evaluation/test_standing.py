"""Everybody against everybody, what one has over another against a third, and by slice."""

from collections.abc import Sequence

import pytest

from pipeline.data.schema import Message
from pipeline.evaluation.judges.protocol import Answer, ByScore
from pipeline.evaluation.standing import against, differences, prompt_labels, round_robin, slices, standing
from pipeline.evaluation.statistics import wilson

ASKED: tuple[Message, ...] = ({"role": "user", "content": "Well?"},)
WIN, TIE, LOSS = [1.0], [0.5], [0.0]


class ByLength:
    """The longer the better."""

    name = "length"

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [float(len(a.text)) for a in answers]


def test_every_two_systems_are_compared_once() -> None:
    answers = {name: [[Answer(ASKED, "a" * n, [1], [2], True)]] for name, n in (("x", 1), ("y", 2), ("z", 2))}
    assert round_robin(ByScore(ByLength()), answers) == {("x", "y"): [LOSS], ("x", "z"): [LOSS], ("y", "z"): [TIE]}


def test_standing_names_the_best_first_and_says_who_beats_whom() -> None:
    outcomes = {
        ("sft", "policy"): [WIN] * 10 + [LOSS] * 30,
        ("sft", "base"): [WIN] * 24 + [LOSS] * 16,
        ("policy", "base"): [WIN] * 36 + [LOSS] * 4,
    }
    rows = standing(outcomes, anchor="sft", seed=0)
    assert [row["system"] for row in rows] == ["policy", "sft", "base"]
    assert rows[1]["rating"] == rows[1]["low"] == rows[1]["high"] == 1000
    assert rows[0]["over"]["sft"] == pytest.approx([0.75, *wilson(30, 40)])
    assert rows[1]["over"]["policy"] == pytest.approx([0.25, *wilson(10, 40)])
    assert rows[0]["low"] < rows[0]["rating"] < rows[0]["high"]


def test_a_systems_outcomes_are_found_whoever_was_named_first() -> None:
    outcomes = {("sft", "policy"): [[1.0, 0.5], LOSS]}
    assert against(outcomes, "sft", "policy") == [[1.0, 0.5], [0.0]]
    assert against(outcomes, "policy", "sft") == [[0.0, 0.5], [1.0]]


def test_differences_pair_the_prompts() -> None:
    """Both win on half of the prompts, and on the same ones: nothing is between them. On others: no more is known."""
    half, other = [WIN, LOSS] * 20, [LOSS, WIN] * 20
    turned = [[1 - outcome for outcome in prompt] for prompt in half]
    same = differences({("sft", "policy"): turned, ("best", "sft"): half}, of="policy", over="sft", among=["best"])
    assert same["policy_minus_best_over_sft"] == 0.0
    apart = differences({("sft", "policy"): turned, ("best", "sft"): other}, of="policy", over="sft", among=["best"])
    assert apart["policy_minus_best_over_sft"] == 0.0
    width = [figures["policy_minus_best_over_sft_high"] for figures in (same, apart)]
    assert width[0] < width[1]


def test_slices_by_category_and_length() -> None:
    labels = prompt_labels(["food"] * 20 + ["work"] * 20, [5] * 20 + [9] * 20)
    rows = slices([WIN] * 20 + [LOSS] * 20, labels)
    assert [(row["by"], row["slice"], row["rate"], row["n"]) for row in rows] == [
        ("category", "food", 1.0, 20),
        ("category", "work", 0.0, 20),
        ("prompt tokens", "5", 1.0, 20),
        ("prompt tokens", "9", 0.0, 20),
    ]
    assert "category" not in prompt_labels([None, None], [1, 2])


def test_a_label_of_which_every_value_is_rare_tells_nothing() -> None:
    assert slices([WIN, LOSS] * 10, {"category": [str(i) for i in range(20)]}) == []
