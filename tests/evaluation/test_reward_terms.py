"""What completions are worth: terms, their scales and their weighted sum, in numbers."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.data.schema import Prompt
from pipeline.evaluation.reward_terms import Completed, FunctionTerm, ModelTerm, RewardError, Terms, completed

ROLLOUT: Any = SimpleNamespace(actions=torch.zeros(4, 1))
TALK = (
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "2 + 2?"},
)
PROMPTS = [Prompt(TALK, "x.jsonl:7", {}, {"answer": 4}), Prompt(TALK[-1:], "x.jsonl:8", {}, {"answer": 5})]  # type: ignore[arg-type]
DONE = completed(ROLLOUT, PROMPTS, ["4", "3", "5", "6"])


def model(*scores: float) -> ModelTerm:
    scoring: Any = SimpleNamespace(score=lambda rollout, batch_size: torch.tensor(scores, dtype=torch.float32))
    return ModelTerm(scoring, 2)


def test_each_completion_meets_its_own_row() -> None:
    """Rows 0 and 1 belong to the first prompt, 2 and 3 to the second."""
    seen = []

    def right(prompt: str, completion: str, row: Any) -> bool:
        seen.append(prompt)
        return int(completion) == row["answer"]

    assert FunctionTerm("f", right)(DONE).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert seen == ["2 + 2?"] * 4  # the last user turn


def test_the_weighted_sum_and_each_term_by_itself() -> None:
    models = {"a": model(1, 2, 3, 4), "b": model(0, 1, 0, 1), "watched": model(9, 9, 9, 9)}
    terms = Terms(models, {"a": 1.0, "b": -2.0, "watched": 0.0})
    total, figures = terms(DONE)
    assert total.tolist() == [1.0, 0.0, 3.0, 2.0]
    assert figures == {"reward/a": 2.5, "reward/b": 0.5, "reward/watched": 9.0}


def test_one_model_at_weight_1_pays_its_own_scores_bit_by_bit() -> None:
    scores = torch.randn(4, generator=torch.Generator().manual_seed(0))
    scoring: Any = SimpleNamespace(score=lambda rollout, batch_size: scores)
    total, _ = Terms({"reward": ModelTerm(scoring, 2)}, {"reward": 1.0})(DONE)
    assert torch.equal(total, scores)


def test_a_model_of_elsewhere_is_put_on_the_scale_of_sft() -> None:
    """SFT's answers score 1, 3, 5, 7: mean 4, deviation √5. Functions and the own model stay as they are."""
    function = FunctionTerm("f", lambda prompt, text, row: 3)
    three = {"own": model(1, 3, 5, 7), "f": function, "other": model(1, 3, 5, 7)}
    terms = Terms(three, dict.fromkeys(three, 1.0), ["other"])
    assert not terms.calibrated
    terms.calibrate([DONE])
    assert terms.calibrated
    assert terms.scales == {"other": [4.0, pytest.approx(math.sqrt(5))]}
    total, figures = terms(DONE)
    assert figures == {"reward/own": 4.0, "reward/f": 3.0, "reward/other": pytest.approx(0.0, abs=1e-6)}
    other = (torch.tensor([1.0, 3.0, 5.0, 7.0]) - 4) / math.sqrt(5)
    assert_close(total, torch.tensor([4.0, 6.0, 8.0, 10.0]) + other)


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), [1.0], torch.tensor(1.0)])
def test_what_is_no_finite_number_is_refused_with_its_row(value: Any) -> None:
    with pytest.raises(RewardError, match=r"policy.rewards.x, row x.jsonl:7, completion '4': gave .* a finite number"):
        FunctionTerm("policy.rewards.x", lambda prompt, text, row: value)(DONE)


def test_a_function_that_fails_names_its_row() -> None:
    with pytest.raises(RewardError, match=r"row x.jsonl:8, completion '5': ZeroDivisionError"):
        FunctionTerm("f", lambda prompt, text, row: 1 / (row["answer"] - 5))(DONE)


def test_bools_and_numpys_numbers_count() -> None:
    import numpy as np

    values = iter([True, np.float32(0.5), np.bool(False), 2])
    assert FunctionTerm("f", lambda *_: next(values))(DONE).tolist() == [1.0, 0.5, 0.0, 2.0]


def test_prompts_are_repeated_for_their_groups() -> None:
    done = completed(ROLLOUT, PROMPTS, list("abcdef"))
    assert isinstance(done, Completed)
    assert [prompt.where for prompt in done.prompts] == ["x.jsonl:7"] * 3 + ["x.jsonl:8"] * 3
