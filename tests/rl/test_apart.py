"""A critic with weights of its own is evaluated behind the policy: the same step, and never both graphs at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.update import Evaluation, Objective, update

from .builders import EVERYTHING, TabularPolicy, rollout_of, train


@dataclass
class InTwo:
    """A tabular policy, evaluated in one or two passes; notes what it is asked, and when a pass goes backward."""

    inner: TabularPolicy = field(default_factory=TabularPolicy.random)
    apart: bool = True
    seen: list[str] = field(default_factory=list)

    def parameters(self) -> Any:
        return self.inner.parameters()

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        return self.inner.evaluate(context, actions)

    def acting(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        self.seen.append("acting")
        return self.inner.evaluate(context, actions)._replace(values=None)

    def values(self, context: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        self.seen.append("values")
        values = self.inner.evaluate(context, actions).values
        assert values is not None
        return values


@pytest.mark.parametrize("objective", [EVERYTHING, Objective(), Objective(policy_loss="policy_gradient")])
@pytest.mark.parametrize("micro", [None, 1])
def test_two_passes_take_the_step_of_one(objective: Objective, micro: int | None) -> None:
    whole, apart = InTwo(apart=False), InTwo()
    options: dict[str, Any] = {"microbatch_size": micro, "minibatch_size": 2, "epochs": 2, "max_grad_norm": 0.1}
    stats = [train(policy, rollout_of([3, 1, 2]), objective, lr=0.1, **options) for policy in (whole, apart)]
    assert (whole.seen, "acting" in apart.seen) == ([], True)
    assert_close(apart.parameters(), whole.parameters())
    assert stats[0].keys() == stats[1].keys()
    assert_close(stats[1], stats[0])
    assert (whole.inner.logits - TabularPolicy.random().logits).abs().max() > 1e-3


def test_the_policys_graph_is_gone_before_the_critics_begins() -> None:
    policy = InTwo()
    rollout = rollout_of([2, 1])

    def backward(loss: Tensor) -> None:
        policy.seen.append("backward")
        loss.backward()  # type: ignore[no-untyped-call]

    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    update(
        policy, optimizer, rollout, rollout.rewards, rollout.rewards, EVERYTHING, minibatch_size=2, backward=backward
    )
    assert policy.seen == ["acting", "backward", "values", "backward"]


def test_while_the_critic_warms_up_nobody_asks_the_policy() -> None:
    policy, whole = InTwo(), InTwo(apart=False)
    stats = [train(each, rollout_of([2, 1]), train_policy=False) for each in (policy, whole)]
    assert policy.seen == ["values"]
    assert_close(policy.parameters(), whole.parameters())
    assert_close(stats[0], stats[1])


def test_without_returns_nobody_asks_the_critic() -> None:
    policy = InTwo()
    rollout = replace(rollout_of([2, 1]), values=None)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    update(policy, optimizer, rollout, rollout.rewards, None, Objective(), minibatch_size=2)
    assert policy.seen == ["acting"]
