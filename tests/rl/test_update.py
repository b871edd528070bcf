"""One optimiser step: exact under any split, the plain policy gradient at first, and honest statistics."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.tensors import AGGREGATIONS, aggregate, masked_mean
from pipeline.rl.update import Objective, update

from .builders import EVERYTHING, FEW, LENGTHS, SEEDS, TabularPolicy, rollout_of, step_of, train


@pytest.mark.parametrize("how", AGGREGATIONS)
@FEW
@given(lengths=LENGTHS, seed=SEEDS, micro=st.integers(1, 6))
def test_the_microbatch_split_changes_neither_gradient_nor_statistics(
    how: Any, lengths: list[int], seed: int, micro: int
) -> None:
    rollout, objective = rollout_of(lengths, seed), replace(EVERYTHING, aggregate=how)
    whole, expected = step_of(rollout, objective)
    split, stats = step_of(rollout, objective, microbatch_size=micro)
    assert_close(split, whole, atol=1e-9, rtol=1e-9)
    assert stats.keys() == expected.keys()
    assert_close(list(stats.values()), list(expected.values()), atol=1e-6, rtol=1e-9)


def test_averaging_microbatch_gradients_would_change_it() -> None:
    """The tempting version: a mean per microbatch, divided by their number."""
    rollout = rollout_of([1, 5])
    advantages, _ = estimate_advantages("ppo", rollout)

    def gradient(parts: int) -> Tensor:
        policy, total = TabularPolicy.random(), torch.tensor(0.0).double()
        for rows in torch.arange(2).chunk(parts):
            part = rollout.select(rows)
            now = policy.evaluate(part.context, part.actions)
            total = total - aggregate(advantages[rows] * now.logprobs, part.mask, "token") / parts
        return torch.autograd.grad(total, policy.logits)[0]

    assert (gradient(1) - gradient(2)).abs().max() > 0.05


@FEW
@given(LENGTHS, SEEDS)
def test_padding_changes_nothing(lengths: list[int], seed: int) -> None:
    tight, stats = step_of(rollout_of(lengths, seed))
    wide = rollout_of(lengths, seed, 8)
    junk = {name: torch.where(wide.mask, getattr(wide, name), 1e30) for name in ("logprobs", "ref_logprobs", "values")}
    padded, same = step_of(replace(wide, **junk))
    assert_close(padded, tight)
    assert_close(same, stats)


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), SEEDS)
def test_empty_rows_change_nothing(lengths: list[int], seed: int) -> None:
    """But for the constant normaliser, which counts them."""
    rollout = rollout_of([*lengths, 0, 0], seed)
    some = rollout.select(torch.arange(len(lengths)))
    for how in ("token", "sequence"):
        a, expected = step_of(some, replace(EVERYTHING, aggregate=how))
        b, stats = step_of(rollout, replace(EVERYTHING, aggregate=how), microbatch_size=1)
        assert_close(a, b)
        assert_close(stats, expected)


def test_nothing_to_learn_from_takes_no_step() -> None:
    moved, stats = step_of(rollout_of([0, 0], columns=2))
    assert all(float(change.abs().max()) == 0 for change in moved)
    assert stats == {"update/minibatches": 0.0, "update/stopped_early": 0.0}


@pytest.mark.parametrize("micro", [None, 1])
def test_the_first_minibatch_is_the_plain_policy_gradient(micro: int | None) -> None:
    rollout = TabularPolicy.random().acted(rollout_of([3, 1, 2]))
    ppo, stats = step_of(rollout, Objective(value_coef=0.0), microbatch_size=micro)
    plain, _ = step_of(rollout, Objective(policy_loss="policy_gradient", value_coef=0.0))
    assert_close(ppo, plain)
    assert stats["policy/first_ratio_error"] < 1e-12
    assert stats["policy/clip_fraction"] == 0.0
    assert abs(stats["policy/approx_kl"]) < 1e-12
    assert abs(stats["policy/ratio_max"] - 1) < 1e-12
    policy = TabularPolicy.random()
    advantages, _ = estimate_advantages("ppo", rollout)
    now = policy.evaluate(rollout.context, rollout.actions)
    masked_mean(advantages * now.logprobs, rollout.mask).backward()
    assert policy.logits.grad is not None
    assert_close(ppo[0], policy.logits.grad)


def test_statistics_by_hand() -> None:
    """One state, one step a row; log-ratios ln 1.5 and ln .9."""
    policy = TabularPolicy.random(states=1)
    rollout = rollout_of([1, 1], context={"states": torch.zeros(2, 1, dtype=torch.int64)})
    ratio = torch.tensor([[1.5], [0.9]], dtype=torch.float64)
    now = policy.evaluate(rollout.context, rollout.actions)
    assert policy.values is not None
    old_values = torch.stack([policy.values.detach() + 1.0, policy.values.detach() + 0.1])
    rollout = replace(
        rollout,
        logprobs=now.logprobs.detach() - ratio.log(),
        ref_logprobs=now.logprobs.detach() - 2.0,
        values=old_values,
        next_values=torch.zeros_like(old_values),
        rewards=old_values + torch.tensor([[1.0], [-1.0]]),  # so that A = ±1 and R = V_old ± 1
    )
    stats = train(policy, rollout, replace(EVERYTHING, value_clip=0.5), lr=0.0)
    assert_close(stats["policy/loss"], (-1.2 + 0.9) / 2)
    assert_close(stats["policy/clip_fraction"], 0.5)
    assert_close(stats["policy/approx_kl"], float((ratio - 1 - ratio.log()).mean()))
    assert_close(stats["policy/ratio_max"], 1.5)
    assert_close(stats["policy/first_ratio_error"], 0.5)
    assert_close(stats["policy/entropy"], float(now.entropy.detach().mean()))
    assert_close(stats["policy/kl_loss"], 2.0)
    assert_close(stats["value/clip_fraction"], 0.5)
    assert_close(stats["value/loss"], (0.5 * 2.0**2 + 0.5 * 0.9**2) / 2)
    variance = float((old_values + torch.tensor([[1.0], [-1.0]])).var(unbiased=False))
    assert_close(stats["value/explained_variance"], 1 - 1 / variance)
    assert stats["update/minibatches"] == 1.0
    assert stats["update/stopped_early"] == 0.0


def test_only_the_keys_that_apply() -> None:
    rollout = rollout_of([2, 2])
    policy = TabularPolicy.random(critic=False)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    objective = Objective(policy_loss="policy_gradient")
    stats = update(policy, optimizer, rollout, rollout.rewards, None, objective, minibatch_size=2)
    assert sorted(stats) == [
        "policy/approx_kl",
        "policy/entropy",
        "policy/first_ratio_error",
        "policy/grad_norm",
        "policy/loss",
        "policy/ratio_max",
        "update/minibatches",
        "update/stopped_early",
    ]


def test_a_free_kl_is_only_measured() -> None:
    rollout = rollout_of([3, 2])
    measured, stats = step_of(rollout, Objective(kl_estimator="k3"))
    plain, _ = step_of(rollout, Objective())
    assert_close(measured, plain)
    assert stats["policy/kl_loss"] > 0


def test_ratio_max_is_a_maximum_and_the_rest_are_means_over_minibatches() -> None:
    rollout = rollout_of([2, 1, 3, 2])
    alone = [train(TabularPolicy.random(), rollout.select(torch.tensor([i])), lr=0.0) for i in range(4)]
    rows = train(TabularPolicy.random(), rollout, lr=0.0, minibatch_size=1)
    assert rows["update/minibatches"] == 4.0
    for name in ("policy/entropy", "policy/approx_kl", "policy/kl_loss", "policy/clip_fraction"):
        assert_close(rows[name], sum(stats[name] for stats in alone) / 4)
    for seed in range(4):  # wherever the permutation puts the largest
        generator = torch.Generator().manual_seed(seed)
        rows = train(TabularPolicy.random(), rollout, lr=0.0, minibatch_size=1, generator=generator)
        assert_close(rows["policy/ratio_max"], max(stats["policy/ratio_max"] for stats in alone))


def test_the_ratio_1_of_padding_is_not_the_maximum() -> None:
    acted = TabularPolicy.random().acted(rollout_of([3, 1]))
    halved = replace(acted, logprobs=acted.logprobs + math.log(2))
    stats = train(TabularPolicy.random(), halved, lr=0.0)
    assert_close(stats["policy/ratio_max"], 0.5)
    assert_close(stats["policy/first_ratio_error"], 0.5)
