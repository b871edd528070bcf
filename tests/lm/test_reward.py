"""The reward model: one score at the last real token, calibrated, whatever shares the batch."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import sequences
from pipeline.lm.reward import RewardModel

from .builders import PROMPTS, noisy, rollout, tiny

SEQUENCES = [[1, 40, 41, 2], [1], [1, *range(60, 75), 2], [1, 2, 2, 50]]


@pytest.fixture
def shared(cache: Path) -> Backbone:
    return noisy(tiny(cache), "reward", head=True)


def test_the_score_is_the_heads_value_at_the_last_token(shared: Backbone) -> None:
    scores = RewardModel(shared).scores(SEQUENCES)
    head = shared.heads["reward"]
    for sequence, score in zip(SEQUENCES, scores, strict=True):
        last = shared.hidden("reward", torch.tensor([sequence]))[0, -1]
        assert_close(score, last @ head.weight[0] + head.bias[0], atol=1e-5, rtol=1e-5)


def test_the_score_sees_the_last_token(shared: Backbone) -> None:
    """With or without its end of turn an answer is another one."""
    model = RewardModel(shared)
    assert (model.scores([[1, 40, 41, 2]]) - model.scores([[1, 40, 41]])).abs() > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_batches_and_order_change_nothing(shared: Backbone, size: int) -> None:
    model = RewardModel(shared)
    alone = torch.cat([model.scores([sequence]) for sequence in SEQUENCES]).detach()
    assert_close(model.score_sequences(SEQUENCES, batch_size=size), alone, atol=1e-5, rtol=0)
    assert_close(model.score_sequences(SEQUENCES[::-1], batch_size=size), alone.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_a_rollout_is_scored_as_prompt_plus_completion(shared: Backbone, size: int) -> None:
    noisy(shared, "policy", seed=3)
    acted = rollout(shared)
    model = RewardModel(shared)
    rows = sequences(acted.context, acted.actions)
    lengths = acted.lengths.tolist()
    assert [row[:-length] for row, length in zip(rows, lengths, strict=True)] == [p for p in PROMPTS for _ in range(2)]
    for row, length, actions in zip(rows, lengths, acted.actions.tolist(), strict=True):
        assert row[-length:] == actions[:length]
    expected = torch.cat([model.scores([row]) for row in rows]).detach()
    assert_close(model.score(acted, batch_size=size), expected, atol=1e-5, rtol=0)


def test_standardising_folds_shift_and_scale_into_the_head(shared: Backbone) -> None:
    model = RewardModel(shared)
    before = model.score_sequences(SEQUENCES)
    model.standardise(2.0, 4.0)
    assert_close(model.score_sequences(SEQUENCES), (before - 2) / 4)


def test_scores_carry_gradient_only_where_asked(shared: Backbone) -> None:
    shared.roles.train_only("reward")
    assert RewardModel(shared).scores(SEQUENCES).requires_grad
    assert not RewardModel(shared).score_sequences(SEQUENCES).requires_grad


def test_what_is_refused(shared: Backbone) -> None:
    with pytest.raises(ValueError, match="at least one token; got an empty one"):
        RewardModel(shared).scores([[1], []])
    noisy(shared, "policy")
    with pytest.raises(ValueError, match="'policy' has no scalar head"):
        RewardModel(shared, "policy")
