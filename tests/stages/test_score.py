"""What a completion is worth: the rules and prices in numbers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.config import DataConfig, PolicyConfig
from pipeline.data.schema import Prompt
from pipeline.evaluation.reward_terms import ModelTerm, Terms
from pipeline.stages import score as module
from pipeline.stages.score import Score, end_of_sequence_rule

SCORES = torch.tensor([3.0, -0.5, 2.0])
STOPPED = torch.tensor([True, True, False])
TEXTS = ["take a walk", "no", "well"]
ASKED = [Prompt(({"role": "user", "content": "hm?"},), "x.jsonl:1", {})]
NOBODY: Any = None  # texts are given


def settings(**changes: Any) -> PolicyConfig:
    return PolicyConfig(data=DataConfig(source="prompts.jsonl"), **changes)


def paid(scores: torch.Tensor) -> Terms:
    """One reward model, weight 1."""
    model: Any = SimpleNamespace(score=lambda rollout, batch_size: scores)
    return Terms({"reward": ModelTerm(model, 2)}, {"reward": 1.0})


@pytest.fixture
def rollout() -> Any:
    return SimpleNamespace(context={"stopped": STOPPED}, actions=torch.zeros(3, 1))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "completion_texts", lambda backbone, rollout: TEXTS)
    return paid(SCORES)


@pytest.mark.parametrize(
    ("rule", "value", "clip", "expected"),
    [
        ("replace", -1.0, None, [3.0, -0.5, -1.0]),
        ("penalty", -1.0, None, [3.0, -0.5, 1.0]),
        ("replace", -4.0, 1.0, [1.0, -0.5, -4.0]),  # the constant itself isn't clipped
        ("penalty", -4.0, 1.0, [1.0, -0.5, -3.0]),
    ],
)
def test_the_end_of_sequence_rule(rule: Any, value: float, clip: float | None, expected: list[float]) -> None:
    cfg = settings(missing_eos=rule, missing_eos_value=value, score_clip=clip)
    assert_close(end_of_sequence_rule(SCORES, STOPPED, cfg), torch.tensor(expected))


def test_without_prices_the_policy_is_paid_the_score(model: Any, rollout: Any) -> None:
    scores, final, figures = Score(NOBODY, model, settings())(rollout, ASKED)
    assert_close(scores, SCORES)
    assert_close(final, torch.tensor([3.0, -0.5, -1.0]))
    assert figures == {"objective/repetition": 0.0, "reward/reward": pytest.approx(1.5)}


def test_stock_phrases_cost_their_surplus(model: Any, rollout: Any) -> None:
    """Recent shares are .8 of the demonstrations' and .2 of these three answers': each phrase here stands at 1/15, over
    the minimum. "no" and "well" are the demonstrations' own (surplus 0), "take", "a", "walk" and two pairs and the
    triple are not: six phrases at surplus 1."""
    cfg = settings(stock_phrase_coef=0.5)
    _, final, figures = Score(NOBODY, model, cfg, ["no", "well"])(rollout, ASKED)
    assert_close(final, torch.tensor([3.0 - 0.5 * 6, -0.5, -1.0]))
    assert figures["objective/stock_phrases"] == pytest.approx(2.0)


def test_the_judge_sees_one_completion_of_each_prompt_and_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = torch.tensor([True, True, True, True])
    seen = []

    class Rows:
        def __init__(self) -> None:
            self.context, self.actions = {"stopped": stopped}, torch.zeros(4, 1)

        def __len__(self) -> int:
            return 4

        def select(self, rows: torch.Tensor) -> str:
            seen.append(rows.tolist())
            return "chosen rows"

    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(module, "completion_texts", lambda backbone, rollout: list("abcd"))
    judge: Any = SimpleNamespace(score=lambda rollout, batch_size: torch.tensor([0.5, 1.5]))
    rollout: Any = Rows()
    _, final, figures = Score(NOBODY, paid(scores), settings(group_size=2), judge=judge)(rollout, ASKED * 2)
    assert seen == [[0, 2]]
    assert_close(final, scores)
    assert figures["objective/judge"] == 1.0
