"""Baselines, group normalisation, and the switch between them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.advantages import (
    ALGORITHMS,
    batch_baseline_advantages,
    estimate_advantages,
    group_normalized_advantages,
    rloo_advantages,
    zero_variance_share,
)
from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import masked_mean, masked_whiten

from .builders import FEW, LENGTHS, SEEDS, rollout_of


def f64(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def scored(lengths: list[int], scores: list[float]) -> Rollout:
    rollout = rollout_of(lengths)
    zeros = torch.zeros_like(rollout.rewards)
    return rollout.with_rewards(zeros, final=torch.tensor(scores, dtype=torch.float64))


def test_rloo_is_the_score_minus_the_mean_of_the_others() -> None:
    scores = torch.randn(5, 4, dtype=torch.float64)
    others = torch.stack([scores[:, [j for j in range(4) if j != i]].mean(1) for i in range(4)], 1)
    assert_close(rloo_advantages(scores), scores - others)


def test_equal_scores_give_exactly_zero() -> None:
    scores = torch.full((2, 7), 1 / 3)
    assert scores.sub(scores.mean(1, keepdim=True)).abs().max() > 0, "the plain formula is an ulp off here"
    for advantages in (
        rloo_advantages(scores),
        group_normalized_advantages(scores),
        group_normalized_advantages(scores, scale="none"),
    ):
        assert advantages.abs().max() == 0.0


def test_the_deviation_has_one_degree_of_freedom_less() -> None:
    assert_close(group_normalized_advantages(f64([0, 2]), eps=0.0), f64([-(0.5**0.5), 0.5**0.5]))
    assert_close(group_normalized_advantages(f64([0, 2]), scale="none"), f64([-1, 1]))
    assert_close(group_normalized_advantages(f64([0, 2]), eps=2.0 - 2**0.5), f64([-0.5, 0.5]))


def test_batch_baseline() -> None:
    assert batch_baseline_advantages(torch.tensor([1.0, 2.0, 6.0])).tolist() == [-2.0, -1.0, 3.0]


def test_share_of_groups_without_a_signal() -> None:
    assert zero_variance_share(torch.tensor([[1.0, 1.0], [1.0, 2.0], [0.0, 0.0], [3.0, 3.0]])) == 0.75


def test_adjacent_rows_share_a_prompt() -> None:
    rollout = scored([2, 1, 3, 1], [0, 2, 10, 30])
    advantages, returns = estimate_advantages("rloo", rollout, group_size=2)
    assert returns is None
    assert_close(advantages, f64([-2, -2, 0], [2, 0, 0], [-20, -20, -20], [20, 0, 0]))


def test_the_kl_price_is_subtracted_before_the_baseline() -> None:
    rollout = rollout_of([2, 1])
    price = f64([-0.5, -0.5], [-1, -7])
    advantages, _ = estimate_advantages("rloo", rollout.with_rewards(price, final=f64([3, 5])[0]), group_size=2)
    assert_close(advantages, f64([-2, -2], [2, 0]))


@pytest.mark.parametrize(("algorithm", "scale"), [("grpo", "std"), ("dr_grpo", "none")])
def test_group_methods_use_their_formula(algorithm: str, scale: str) -> None:
    scores = [1.0, 2.0, 3.0, 6.0]
    advantages, returns = estimate_advantages(algorithm, scored([1] * 4, scores), group_size=4)
    assert_close(advantages.T, group_normalized_advantages(f64(scores), scale=scale))
    assert returns is None


def test_reinforce_subtracts_the_batch_mean_and_discounts_within_the_row() -> None:
    rollout = scored([1, 2], [1, 3])
    assert_close(estimate_advantages("reinforce", rollout)[0], f64([-1, 0], [1, 1]))
    discounted = estimate_advantages("reinforce", rollout, gamma=0.1)[0]
    assert_close(discounted, f64([0.35, 0], [-0.35, -0.35]))


def test_reinforce_plus_plus_whitens_the_reward_to_go() -> None:
    rollout = rollout_of([3, 1, 0])
    rollout = rollout.with_rewards(f64([1, 2, 3], [4, 9, 9], [9, 9, 9]))
    togo = f64([1.23, 2.3, 3], [4, 0, 0], [0, 0, 0])
    for normalize in ("none", "whiten"):
        advantages, returns = estimate_advantages("reinforce++", rollout, gamma=0.1, normalize=normalize)
        assert returns is None
        assert_close(advantages, masked_whiten(togo, rollout.mask))


def test_reward_to_go_stops_at_a_time_limit() -> None:
    limit = torch.tensor([[False, True, False]])
    rollout = rollout_of([3], truncated=limit, rewards=f64([1, 2, 100]))
    advantages, _ = estimate_advantages("reinforce++", rollout)
    assert_close(advantages, masked_whiten(f64([3, 2, 100]), rollout.mask))


def test_a_step_gets_what_came_after_it() -> None:
    rollout = rollout_of([3])
    rollout = replace(rollout, rewards=torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64))
    advantages, returns = estimate_advantages("reward_to_go", rollout, gamma=0.5)
    assert_close(advantages, torch.tensor([[3.0, 4.0, 4.0]], dtype=torch.float64))
    assert returns is None


def test_an_actor_critic_credits_like_ppo() -> None:
    rollout = rollout_of([4, 2], seed=3)
    for ours, theirs in zip(
        estimate_advantages("a2c", rollout, gamma=0.9, gae_lambda=0.7),
        estimate_advantages("ppo", rollout, gamma=0.9, gae_lambda=0.7),
        strict=True,
    ):
        assert_close(ours, theirs)


def test_ppo_returns_are_unnormalised_whatever_happens_to_the_advantages() -> None:
    rollout = rollout_of([3, 1, 2])
    plain, returns = estimate_advantages("ppo", rollout, gamma=0.9)
    assert returns is not None
    assert rollout.values is not None
    assert_close(returns, torch.where(rollout.mask, plain + rollout.values, 0.0))
    for normalize, mean in (("whiten", 0.0), ("scale", None)):
        advantages, same = estimate_advantages("ppo", rollout, gamma=0.9, normalize=normalize)
        assert_close(same, returns)
        centred = advantages - masked_mean(advantages, rollout.mask)
        assert_close(float(masked_mean(centred.square(), rollout.mask)), 1.0)
        if mean is not None:
            assert abs(float(masked_mean(advantages, rollout.mask))) < 1e-9
        else:
            assert bool((advantages.sign() == plain.sign()).all())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@FEW
@given(LENGTHS, SEEDS)
def test_padding_changes_nothing(algorithm: str, lengths: list[int], seed: int) -> None:
    lengths = lengths * 2  # two adjacent groups, or one
    size = len(lengths) // 2 if len(lengths) > 2 else 2
    tight, wide = rollout_of(lengths, seed), rollout_of(lengths, seed, 8)
    wide = replace(wide, rewards=torch.where(wide.mask, wide.rewards, float("nan")))
    a, _ = estimate_advantages(algorithm, tight, group_size=size, normalize="whiten")
    b, _ = estimate_advantages(algorithm, wide, group_size=size, normalize="whiten")
    assert_close(a, b[:, : a.shape[1]])
    assert b[~wide.mask].abs().sum() == 0.0


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "dr_grpo"])
@FEW
@given(SEEDS)
def test_other_prompts_change_nothing(algorithm: str, seed: int) -> None:
    rollout = rollout_of([3, 1, 0, 2], seed)
    pair = rollout.select(torch.tensor([0, 1]))
    a, _ = estimate_advantages(algorithm, rollout, group_size=2)
    b, _ = estimate_advantages(algorithm, pair, group_size=2)
    assert_close(a[:2], b)


def test_advantages_are_constants() -> None:
    rollout = rollout_of([2, 1])
    values = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    live = replace(rollout, values=values, next_values=values * 1, rewards=values + 1)
    for algorithm in ALGORITHMS:
        advantages, returns = estimate_advantages(algorithm, live, group_size=2)
        assert not advantages.requires_grad
        assert returns is None or not returns.requires_grad


def test_errors_name_field_value_and_fix() -> None:
    rollout = rollout_of([2, 1, 1])
    cases = [
        (lambda: estimate_advantages("sac", rollout), "algorithm: got 'sac'; use one of ppo"),
        (lambda: estimate_advantages("ppo", rollout, normalize="std"), "normalize: got 'std'"),
        (lambda: estimate_advantages("ppo", replace(rollout, values=None)), "values: got None"),
        (lambda: estimate_advantages("reinforce", rollout, gamma=2.0), "gamma: got 2.0"),
        (lambda: estimate_advantages("rloo", rollout), "group_size: got 1 for 3 rows"),
        (lambda: estimate_advantages("grpo", rollout, group_size=2), "group_size: got 2 for 3 rows"),
        (lambda: batch_baseline_advantages(torch.ones(1)), r"scores: got shape \(1,\)"),
        (lambda: group_normalized_advantages(torch.ones(2, 2), scale="mad"), "scale: got 'mad'"),
        (lambda: rloo_advantages(torch.ones(3, 1)), "scores: got group size 1"),
        (lambda: rloo_advantages(torch.ones(3)), r"scores: got shape \(3,\), need \[P,G\]"),
        (lambda: zero_variance_share(torch.ones(0, 2)), "scores: got 0 groups"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
