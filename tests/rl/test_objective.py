"""The objective refuses nonsense, and adds up its parts."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.rl.objective import Minibatch, Objective, per_step_losses
from pipeline.rl.update import Evaluation

from .builders import TabularPolicy, rollout_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_loss": "a2c"}, "policy_loss: got 'a2c'; use one of 'ppo_clip'"),
        ({"aggregate": "mean"}, "aggregate: got 'mean'"),
        ({"kl_estimator": "k1", "kl_coef": 0.1}, "kl_estimator: got 'k1'; use one of 'k2', 'k3'"),
        ({"clip_low": -0.1}, "clip_low: got -0.1"),
        ({"clip_low": 1.1}, "clip_low: got 1.1; use at most 1"),
        ({"clip_high": math.inf}, "clip_high: got inf"),
        ({"value_coef": math.nan}, "value_coef: got nan"),
        ({"entropy_coef": -1.0}, "entropy_coef: got -1.0"),
        ({"value_clip": 0.0}, "value_clip: got 0.0"),
        ({"aggregate": "constant"}, "max_length: got None; aggregate='constant'"),
        ({"kl_coef": 0.1}, "kl_estimator: got None with kl_coef=0.1"),
    ],
)
def test_construction_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**change)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    rollout, policy = rollout_of([3, 2]), TabularPolicy.random()
    batch = Minibatch.of(rollout, rollout.rewards, rollout.rewards)
    now = policy.evaluate(rollout.context, rollout.actions)
    objective = Objective(value_coef=0.5, entropy_coef=0.3, kl_coef=0.7, kl_estimator="k3")
    parts = per_step_losses(now, batch, objective, train_policy=True)
    total = parts["policy/loss"] + 0.5 * parts["value/loss"] + 0.7 * parts["policy/kl_loss"] - 0.3 * now.entropy
    assert_close(parts["loss"], total)
    warm_up = per_step_losses(now, batch, objective, train_policy=False)
    assert set(warm_up) == {"loss", "value/loss"}
    assert_close(warm_up["loss"], 0.5 * parts["value/loss"])


def test_junk_at_padding_reaches_neither_loss_nor_gradient() -> None:
    """A log-prob of 1e4 at padding: exp overflows, and inf · 0 would be NaN."""
    rollout = rollout_of([2, 1])
    logprobs = torch.where(rollout.mask, rollout.logprobs, 1e4).requires_grad_()
    batch = Minibatch.of(rollout, rollout.rewards, None)
    now = Evaluation(logprobs, torch.zeros_like(logprobs), None)
    loss = per_step_losses(now, batch, Objective(kl_coef=1.0, kl_estimator="k3"), True)["loss"]
    loss[rollout.mask].sum().backward()
    assert logprobs.grad is not None
    assert bool(logprobs.grad.isfinite().all())
    naive = torch.exp(logprobs - rollout.logprobs) * rollout.mask
    assert not bool(torch.autograd.grad(naive.sum(), logprobs)[0].isfinite().all())


def test_returns_need_a_critic() -> None:
    rollout, policy = rollout_of([2]), TabularPolicy.random(critic=False)
    batch = Minibatch.of(rollout, rollout.rewards, rollout.rewards)
    with pytest.raises(ValueError, match="values: got None; give the policy a critic"):
        per_step_losses(policy.evaluate(rollout.context, rollout.actions), batch, Objective(), True)


def test_rows_are_trimmed_and_the_context_is_not() -> None:
    whole = Minibatch.of(rollout_of([5, 1, 2]), torch.ones(3, 5), None)
    part = whole.rows(torch.tensor([2, 1]))
    assert part.actions.shape == part.mask.shape == (2, 2)
    assert part.returns is None
    assert part.context["states"].shape == whole.context["states"][:2].shape
    with pytest.raises(ValueError, match="advantages: got shape"):
        Minibatch.of(rollout_of([2]), torch.ones(1), None)
