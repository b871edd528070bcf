"""Epochs and minibatches: order, trimming, clipping, stopping early, and stopping before a NaN."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.update import Evaluation, Objective, update

from .builders import EVERYTHING, TabularPolicy, rollout_of, step_of, train


@dataclass
class Recorder:
    """A policy that notes which rows and shapes it is asked about."""

    inner: TabularPolicy
    asked: list[list[int]]
    shapes: list[tuple[int, ...]]

    def parameters(self) -> Any:
        return self.inner.parameters()

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        self.asked.append(context["row"].tolist())
        self.shapes.append(tuple(actions.shape))
        return self.inner.evaluate(context, actions)


def recorded(lengths: list[int], **options: Any) -> Recorder:
    rollout = rollout_of(lengths)
    rollout = replace(rollout, context={**rollout.context, "row": torch.arange(len(lengths))})
    recorder = Recorder(TabularPolicy.random(), [], [])
    train(recorder, rollout, **options)
    return recorder


def test_a_fresh_permutation_every_epoch_from_the_generator() -> None:
    def order(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return recorded([2] * 6, minibatch_size=4, epochs=3, generator=generator).asked

    asked = order(0)
    assert [len(rows) for rows in asked] == [4, 2] * 3
    epochs = [asked[i] + asked[i + 1] for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(0) == asked
    assert order(1) != asked
    torch.manual_seed(5)
    assert len(recorded([2] * 6, generator=None).asked) == 1


def test_rows_are_sorted_and_trimmed_before_the_split() -> None:
    assert recorded([1, 5, 0, 2, 4, 0], microbatch_size=2).shapes == [(2, 5), (2, 2)]


def test_two_epochs_are_two_calls_and_old_gradients_do_not_leak() -> None:
    rollout = rollout_of([3, 2])
    once, twice = TabularPolicy.random(), TabularPolicy.random()
    train(once, rollout, epochs=2, lr=0.1)
    for _ in range(2):
        twice.logits.grad = torch.full_like(twice.logits, 7.0)
        train(twice, rollout, lr=0.1)
    assert_close(once.logits, twice.logits)


def test_gradients_are_clipped_together() -> None:
    rollout = rollout_of([3, 2])
    free, stats = step_of(rollout)
    norm = float(torch.cat([change.flatten() for change in free]).norm())
    assert_close(stats["policy/grad_norm"], norm)
    clipped, _ = step_of(rollout, max_grad_norm=norm / 2)
    assert_close([2 * change for change in clipped], free, atol=1e-5, rtol=1e-5)  # torch divides by norm + 1e-6


def test_warm_up_moves_the_critic_only() -> None:
    moved, stats = step_of(rollout_of([3, 2]), train_policy=False)
    both, _ = step_of(rollout_of([3, 2]))
    assert float(moved[0].abs().max()) == 0.0
    assert_close(moved[1], both[1])
    assert {name.split("/")[0] for name in stats} == {"value", "update"}


def test_without_statistics_it_learns_the_same_and_says_less() -> None:
    told, silent = TabularPolicy.random(), TabularPolicy.random()
    rollout = rollout_of([3, 1, 2])
    everything = train(told, rollout, epochs=2)
    counts = train(silent, rollout, epochs=2, statistics=False)
    for one, other in zip(told.parameters(), silent.parameters(), strict=True):
        assert_close(one, other, rtol=0, atol=0)
    assert set(counts) == {"update/minibatches", "update/stopped_early"} < set(everything)


def test_target_kl_stops_before_the_step_that_would_go_further() -> None:
    rollout = TabularPolicy.random().acted(rollout_of([3, 2, 4]))
    one, _ = step_of(rollout)
    stopped, stats = step_of(rollout, epochs=5, target_kl=1e-9)
    assert_close(stopped, one)
    assert stats["update/stopped_early"] == 1.0
    assert stats["update/minibatches"] == 1.0
    assert stats["policy/approx_kl"] > 1e-9
    _, stats = step_of(rollout, epochs=2, target_kl=1e9)
    assert stats["update/stopped_early"] == 0.0
    assert stats["update/minibatches"] == 2.0


def test_backward_is_injected() -> None:
    seen: list[float] = []

    def doubled(loss: Tensor) -> None:
        seen.append(float(loss.detach()))
        (2 * loss).backward()

    plain, _ = step_of(rollout_of([3, 2]))
    twice, _ = step_of(rollout_of([3, 2]), backward=doubled, microbatch_size=1)
    assert len(seen) == 2
    assert_close(twice, [2 * change for change in plain])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_step(bad: float) -> None:
    policy, rollout = TabularPolicy.random(), rollout_of([2, 2])
    advantages = rollout.rewards.clone()
    advantages[1, 1] = bad
    optimizer = torch.optim.Adam(policy.parameters())
    before = policy.logits.detach().clone()
    with pytest.raises(FloatingPointError, match=r"epoch 0, minibatch 0: got loss (nan|-?inf)"):
        update(policy, optimizer, rollout, advantages, None, Objective(), minibatch_size=2)
    assert_close(policy.logits.detach(), before)
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert not optimizer.state


def test_a_finite_loss_with_a_nan_gradient_stops_too_and_names_where() -> None:
    """√0 has an infinite slope; the second minibatch of the second epoch meets it."""
    calls = 0

    def sometimes_broken(loss: Tensor) -> None:
        nonlocal calls
        calls += 1
        (loss + (torch.sqrt(0 * policy.logits).sum() if calls == 4 else 0)).backward()

    policy = TabularPolicy.random()
    with pytest.raises(FloatingPointError, match=r"epoch 1, minibatch 1: got loss -?[0-9.e-]+, gradient norm nan"):
        train(policy, rollout_of([2] * 4), minibatch_size=2, epochs=3, backward=sometimes_broken, lr=0.01)
    assert policy.logits.grad is None
    assert bool(policy.logits.isfinite().all())


def test_flattened_steps_train_like_rows() -> None:
    """Gym shuffles steps, language shuffles rows: with one minibatch there is no difference."""
    rollout = rollout_of([3, 1, 2], columns=5)
    states = rollout.context["states"][:, :5]
    rollout = replace(rollout, context={"states": states})
    advantages, returns = estimate_advantages("ppo", rollout)
    assert returns is not None
    results = []
    flat = rollout.flatten()
    cases = (
        (rollout, advantages, returns),
        (flat, advantages[rollout.mask][:, None], returns[rollout.mask][:, None]),
    )
    for case, credit, targets in cases:
        policy = TabularPolicy.random()
        context = {"states": case.context["states"].reshape(len(case), -1)}
        case = replace(case, context=context)
        optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
        update(policy, optimizer, case, credit, targets, EVERYTHING, minibatch_size=len(case))
        results.append(torch.cat([policy.logits.detach().flatten(), policy.parameters()[1].detach()]))
    assert_close(*results)


def test_constant_returns_have_no_explained_variance() -> None:
    rollout = rollout_of([1, 1])
    policy, flat = TabularPolicy.random(), torch.ones_like(rollout.rewards)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    stats = update(policy, optimizer, rollout, flat, flat, Objective(), minibatch_size=2)
    assert "value/explained_variance" not in stats
    assert "value/loss" in stats


def test_a_critic_without_old_values_needs_no_clip() -> None:
    rollout = rollout_of([2, 1], values=None, next_values=None)
    policy = TabularPolicy.random()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)

    def run(objective: Objective) -> dict[str, float]:
        return update(policy, optimizer, rollout, rollout.rewards, rollout.rewards, objective, minibatch_size=2)

    stats = run(Objective(value_clip=None))
    assert "value/loss" in stats
    assert "value/clip_fraction" not in stats
    with pytest.raises(ValueError, match=r"rollout\.values: got None with value_clip set"):
        run(Objective())


def test_errors_name_field_value_and_fix() -> None:
    rollout, policy = rollout_of([2, 1]), TabularPolicy.random()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)

    def call(objective: Objective = EVERYTHING, returns: Tensor | None = None, **options: Any) -> Callable[[], Any]:
        given = options.pop("rollout", rollout)
        options = {"minibatch_size": 2} | options
        return lambda: update(policy, optimizer, given, rollout.rewards, returns, objective, **options)

    class Crooked(TabularPolicy):
        def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
            return super().evaluate(context, actions)._replace(entropy=torch.zeros(2))

    crooked = Crooked(policy.logits)
    cases = [
        (call(epochs=0), "epochs: got 0"),
        (call(minibatch_size=0), "minibatch_size: got 0"),
        (call(microbatch_size=-1), "microbatch_size: got -1"),
        (call(train_policy=False), "returns: got None with train_policy=False"),
        (call(returns=torch.ones(2)), "returns: got shape"),
        (
            call(Objective(kl_estimator="k2"), rollout=replace(rollout, ref_logprobs=None)),
            "rollout.ref_logprobs: got None",
        ),
        (
            lambda: update(crooked, optimizer, rollout, rollout.rewards, None, Objective(), minibatch_size=2),
            r"policy.evaluate\(\).entropy: got shape",
        ),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
