"""The language policy: its numbers against one row at a time and all logits at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions
from pipeline.lm.packing import States
from pipeline.lm.policy import LanguagePolicy, Positions, mean_logprobs, rollout_logprobs, rollout_values, to_rollout
from pipeline.rl.rollout import Rollout

from .builders import naive_logprobs, noisy, tiny

PROMPTS = [[1, 40, 41, 42], [1], [1, 60, 61, 62, 63, 64]]
ANSWERS = [[50, 51, 2], [52], [53, 54, 55, 56, 2]]  # three, one and five tokens


@pytest.fixture
def shared(cache: Path) -> Backbone:
    backbone = noisy(tiny(cache), "policy")
    return noisy(backbone, "critic", seed=2, head=True)


def acted(backbone: Backbone) -> Rollout:
    tokens = torch.zeros(3, 5, dtype=torch.long)
    for row, answer in enumerate(ANSWERS):
        tokens[row, : len(answer)] = torch.tensor(answer)
    lengths = torch.tensor([len(answer) for answer in ANSWERS])
    stopped = torch.tensor([True, False, True])
    return to_rollout(backbone, Completions(PROMPTS, tokens, torch.zeros(3, 5), lengths, stopped))


def rows(per_token: Tensor) -> list[Tensor]:
    """The real entries of each row."""
    return [per_token[row, : len(answer)] for row, answer in enumerate(ANSWERS)]


def test_a_rollout_knows_its_endings_and_its_limit(shared: Backbone) -> None:
    rollout = acted(shared)
    assert rollout.lengths.tolist() == [3, 1, 5]
    assert rollout.terminated.nonzero().tolist() == [[0, 2], [1, 0], [2, 4]]
    assert not rollout.truncated.any()
    assert rollout.context["stopped"].tolist() == [True, False, True]
    assert rollout.context["prompt_lengths"].tolist() == [4, 1, 6]


def test_positions_of_ragged_prompts_and_completions(shared: Backbone) -> None:
    """Row b's token t is predicted at position prompt_length − 1 + t."""
    rollout = acted(shared)
    at = Positions(rollout.context, rollout.actions)
    assert at.sequences == [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert list(zip(at.rows.tolist(), at.columns.tolist(), at.targets.tolist(), strict=True)) == [
        *[(0, 3, 50), (0, 4, 51), (0, 5, 2)],
        *[(1, 0, 52)],
        *[(2, 5, 53), (2, 6, 54), (2, 7, 55), (2, 8, 56), (2, 9, 2)],
    ]
    marks = States(torch.arange(33.0)[:, None], torch.arange(33).view(3, 11))
    assert at.scatter(at.select(marks).squeeze(1))[1].tolist() == [11.0, 0, 0, 0, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_evaluate_equals_all_logits_one_row_at_a_time(shared: Backbone, temperature: float) -> None:
    rollout = acted(shared)
    policy = LanguagePolicy(shared, temperature=temperature, entropy_gradient=True)
    found = policy.evaluate(rollout.context, rollout.actions)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        naive = naive_logprobs(shared, "policy", prompt, answer, temperature)
        assert_close(rows(found.logprobs)[row], naive, atol=1e-5, rtol=1e-5)
        hidden = shared.hidden("policy", torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1]
        table = torch.log_softmax(shared.logits(hidden) / temperature, -1)
        assert_close(rows(found.entropy)[row], -(table.exp() * table).sum(-1), atol=1e-5, rtol=1e-5)
    assert not found.logprobs[~rollout.mask].any()
    assert not found.entropy[~rollout.mask].any()
    assert found.values is None


def test_gradients_equal_those_of_all_logits(shared: Backbone) -> None:
    rollout = acted(shared)
    parameters = LanguagePolicy(shared).trainable_parameters()["policy"]
    ours = torch.autograd.grad(
        LanguagePolicy(shared).evaluate(rollout.context, rollout.actions).logprobs.sum(), parameters
    )
    loss = sum(naive_logprobs(shared, "policy", p, a).sum() for p, a in zip(PROMPTS, ANSWERS, strict=True))
    assert isinstance(loss, Tensor)
    assert_close(ours, torch.autograd.grad(loss, parameters), atol=1e-4, rtol=1e-4)


def test_values_are_read_before_each_action(shared: Backbone) -> None:
    """V(s_t) sees the prompt and the actions before t: at t = 0 the prompt alone."""
    rollout = acted(shared)
    values = LanguagePolicy(shared, critic="adapter").evaluate(rollout.context, rollout.actions).values
    assert values is not None
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        for step in range(len(answer)):
            ids = torch.tensor([prompt + answer[:step]])
            alone = shared.score("critic", shared.hidden("critic", ids)[0, -1])
            assert_close(values[row, step], alone, atol=1e-5, rtol=1e-5)
    assert not values[~rollout.mask].any()


def test_rows_batches_and_trimming_change_nothing(shared: Backbone) -> None:
    """One row, another order, batches of any size, padding cut off: all the same to 1e-5."""
    rollout = acted(shared)
    policy = LanguagePolicy(shared, critic="adapter")
    whole = policy.evaluate(rollout.context, rollout.actions)
    order = torch.tensor([2, 0, 1])
    part = rollout.select(order)
    turned = policy.evaluate(part.context, part.actions)
    assert_close(turned.logprobs, whole.logprobs[order], atol=1e-5, rtol=0)
    one = rollout.select(torch.tensor([1]))
    trimmed = policy.evaluate(one.context, one.actions[:, :1])
    assert_close(trimmed.logprobs[0], whole.logprobs[1, :1], atol=1e-5, rtol=0)
    for size in (1, 2, 3):
        again = rollout_logprobs(shared, "policy", rollout, temperature=1.0, batch_size=size)
        assert not again.requires_grad
        assert_close(again, whole.logprobs.detach(), atol=1e-5, rtol=0)
        sized = LanguagePolicy(shared, critic="adapter", batch_size=size)
        assert whole.values is not None
        assert_close(rollout_values(sized, rollout), whole.values.detach(), atol=1e-5, rtol=0)


def test_reference_logprobs_need_no_gradient_and_know_their_adapter(shared: Backbone) -> None:
    rollout = acted(shared)
    base = rollout_logprobs(shared, None, rollout, temperature=0.5, batch_size=2)
    assert not base.requires_grad
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        assert_close(rows(base)[row], naive_logprobs(shared, None, prompt, answer, 0.5).detach(), atol=1e-5, rtol=1e-5)


def gradient_reaches_policy(shared: Backbone, critic: Any) -> bool:
    rollout = acted(shared)
    policy = LanguagePolicy(shared, critic=critic)
    roles = policy.trainable_parameters()
    values = policy.evaluate(rollout.context, rollout.actions).values
    assert values is not None
    values.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in roles["critic"])
    return any(p.grad is not None and bool(p.grad.any()) for p in roles["policy"])


def test_a_critic_of_its_own_leaves_the_policy_alone(shared: Backbone) -> None:
    assert not gradient_reaches_policy(shared, "adapter")


def test_a_critic_on_the_shared_trunk_trains_the_policys_adapter(shared: Backbone) -> None:
    assert gradient_reaches_policy(shared, "shared_trunk")


@pytest.mark.parametrize("critic", ["adapter", "shared_trunk"])
def test_values_can_start_at_zero_and_learn_from_there(shared: Backbone, critic: Any) -> None:
    rollout = acted(shared)
    policy = LanguagePolicy(shared, critic=critic)
    assert policy.values(rollout.context, rollout.actions).any()
    policy.start_values_at_zero()
    values = policy.values(rollout.context, rollout.actions)
    assert not values.any()
    head = policy.trainable_parameters()["critic"][-2:]
    (policy.values(rollout.context, rollout.actions) - 1).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head)


def test_what_learns_by_role(shared: Backbone) -> None:
    """Seven layers a block, two blocks, two matrices: 28 LoRA weights; a head is a weight and a bias."""
    counts = {
        critic: {
            role: len(found) for role, found in LanguagePolicy(shared, critic=critic).trainable_parameters().items()
        }
        for critic in (None, "adapter", "shared_trunk")
    }
    assert counts == {
        None: {"policy": 28},
        "adapter": {"policy": 28, "critic": 30},
        "shared_trunk": {"policy": 28, "critic": 2},
    }
    first = LanguagePolicy(shared, critic="shared_trunk").trainable_parameters()
    assert len({id(p) for found in first.values() for p in found}) == 30


@pytest.mark.parametrize("options", [{}, {"fast": False}, {"lora": {"layers": [1]}}])
@pytest.mark.parametrize("adapter", [None, "policy"])
def test_the_mean_logprob_of_an_answer(cache: Path, options: dict[str, Any], adapter: str | None) -> None:
    """Whatever the batches and their order; the prompt's own tokens don't count."""
    backbone = noisy(tiny(cache, **options), "policy")
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    starts = [len(prompt) for prompt in PROMPTS]
    expected = torch.stack(
        [naive_logprobs(backbone, adapter, *pair).mean() for pair in zip(PROMPTS, ANSWERS, strict=True)]
    )
    for size in (1, 2, 3):
        found = mean_logprobs(backbone, adapter, texts, starts, batch_size=size)
        assert_close(found, expected, atol=1e-5, rtol=1e-5)
