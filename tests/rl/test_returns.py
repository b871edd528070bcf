"""Returns and advantages, with γ = 0.1 so that a reader sees the digits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.returns import discounted_returns, discounts_and_lambdas, gae, n_step_target, td_target

from .builders import FEW, LENGTHS, SEEDS, last_of, mask_of, rollout_of


def f64(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_returns_show_the_digits() -> None:
    returns = discounted_returns(f64([1, 2, 3]), f64([0.1, 0.1, 0.1]), torch.tensor([4.0], dtype=torch.float64))
    assert_close(returns, f64([1.234, 2.34, 3.4]))


def test_a_zero_discount_separates_two_episodes() -> None:
    returns = discounted_returns(f64([1, 2, 3, 4]), f64([0.1, 0, 0.1, 0]), torch.tensor(9.0))
    assert_close(returns, f64([1.2, 2, 3.4, 4]))


def test_returns_of_no_steps() -> None:
    assert discounted_returns(torch.ones(2, 0), torch.ones(2, 0), torch.zeros(2)).shape == (2, 0)


def test_td_target_shows_the_digits() -> None:
    assert_close(td_target(f64([1, 2]), f64([5, 7]), f64([0.1, 0])), f64([1.5, 2]))


def test_n_step_target_shows_the_digits() -> None:
    """Chains of three, of two that a clock cut off, and of two that ended; each with V = 7 behind it."""
    rewards = torch.tensor([[1, 2, 3], [1, 2, 0], [1, 2, 0]], dtype=torch.float64)
    lengths, terminated = torch.tensor([3, 2, 2]), torch.tensor([False, False, True])
    values = torch.full((3,), 7.0, dtype=torch.float64)
    assert_close(n_step_target(rewards, lengths, values, terminated, 0.1), f64([1.237, 1.27, 1.2])[0])


@FEW
@given(LENGTHS, SEEDS)
def test_n_step_targets_are_gae_with_a_lambda_that_ends_after_n_steps(lengths: list[int], seed: int) -> None:
    """Of chains that start an episode, against what `gae` and `discounts_and_lambdas` make of the same steps."""
    lengths = [max(1, length) for length in lengths]
    rollout = rollout_of(lengths, seed)
    rewards, values, following = rollout.rewards, rollout.values, rollout.next_values
    assert values is not None
    assert following is not None
    following[:, :-1] = values[:, 1:]  # only then do the values between the two ends cancel
    discounts, lambdas = discounts_and_lambdas(rollout, 0.9, 1.0)
    for n in range(1, 4):
        steps = torch.tensor([min(n, length) for length in lengths])
        ended = [(rollout.terminated | rollout.truncated)[row, : int(m)] for row, m in enumerate(steps)]
        steps = torch.tensor([int(flags.nonzero()[0]) + 1 if flags.any() else len(flags) for flags in ended])
        rows = torch.arange(len(steps))
        chains = rewards[:, :n] * (torch.arange(rewards[:, :n].shape[1]) < steps[:, None])
        found = n_step_target(chains, steps, following[rows, steps - 1], rollout.terminated[rows, steps - 1], 0.9)
        short = lambdas.clone()
        short[rows, steps - 1] = 0.0
        assert_close(found, (gae(rewards, values, following, discounts, short) + values)[:, 0])


def test_lambda_0_is_the_td_error_and_lambda_1_the_return_minus_the_value() -> None:
    rewards, values = f64([1, 2, 3]), f64([0.3, 0.2, 0.1])
    following, discounts = f64([0.2, 0.1, 0]), f64([0.1, 0.1, 0])
    td = td_target(rewards, following, discounts) - values
    assert_close(gae(rewards, values, following, discounts, torch.zeros_like(td)), td)
    monte_carlo = discounted_returns(rewards, discounts, torch.zeros(1, dtype=torch.float64)) - values
    assert_close(gae(rewards, values, following, discounts, torch.ones_like(td)), monte_carlo)


@FEW
@given(LENGTHS, SEEDS)
def test_gae_equals_the_sum_over_the_future(lengths: list[int], seed: int) -> None:
    """A_t = Σ_k (Π_{i<k} d_{t+i} λ_{t+i}) δ_{t+k}, straight from the definition."""
    rollout = rollout_of(lengths, seed)
    discounts, lambdas = discounts_and_lambdas(rollout, 0.9, 0.8)
    rewards, values, following = rollout.rewards, rollout.values, rollout.next_values
    assert values is not None
    assert following is not None
    found = gae(rewards, values, following, discounts, lambdas)
    for row, length in enumerate(lengths):
        for t in range(length):
            total, weight = 0.0, 1.0
            for k in range(t, length):
                delta = rewards[row, k] + discounts[row, k] * following[row, k] - values[row, k]
                total += weight * float(delta)
                weight *= float(discounts[row, k] * lambdas[row, k])
            assert abs(float(found[row, t]) - total) < 1e-9


def test_terminated_forgets_the_future_and_truncated_bootstraps() -> None:
    rollout = rollout_of([2], rewards=f64([1, 2]), values=f64([0, 0]), next_values=f64([0, 5]))
    assert rollout.values is not None
    assert rollout.next_values is not None
    cut = replace(rollout, terminated=torch.zeros_like(rollout.mask), truncated=last_of(rollout.mask))
    for case, last in ((rollout, 2.0), (cut, 2.5)):
        discounts, lambdas = discounts_and_lambdas(case, 0.1, 1.0)
        found = gae(case.rewards, rollout.values, rollout.next_values, discounts, lambdas)
        assert_close(found, f64([1 + 0.1 * last, last]))


def test_no_credit_crosses_an_auto_reset() -> None:
    """Four steps, a time limit after the second: what follows must not reach back."""
    mask = torch.ones(1, 4, dtype=torch.bool)
    limit = torch.tensor([[False, True, False, False]])
    rollout = rollout_of([4], truncated=limit, terminated=torch.zeros_like(mask))
    assert rollout.values is not None
    assert rollout.next_values is not None
    discounts, lambdas = discounts_and_lambdas(rollout, 0.9, 0.95)
    assert_close(discounts, torch.full((1, 4), 0.9, dtype=torch.float64))
    assert_close(lambdas, f64([0.95, 0, 0.95, 0]))
    before = gae(rollout.rewards, rollout.values, rollout.next_values, discounts, lambdas)
    later = rollout.rewards + f64([0, 0, 100, 100])
    after = gae(later, rollout.values, rollout.next_values, discounts, lambdas)
    assert_close(before[:, :2], after[:, :2])
    wrong = gae(later, rollout.values, rollout.next_values, discounts, torch.full_like(lambdas, 0.95))
    assert (wrong - before)[:, :2].abs().min() > 10


@FEW
@given(LENGTHS, SEEDS)
def test_padding_and_batch_mates_change_nothing(lengths: list[int], seed: int) -> None:
    def advantages(columns: int | None, rows: slice) -> Tensor:
        wide = rollout_of(lengths, seed, columns, terminated=last_free(lengths, columns))
        assert wide.values is not None
        assert wide.next_values is not None
        discounts, lambdas = discounts_and_lambdas(wide, 0.9, 0.8)
        parts = (wide.rewards, wide.values, wide.next_values, discounts, lambdas)
        return torch.where(wide.mask[rows], gae(*(part[rows] for part in parts)), 0.0)

    tight, padded = advantages(None, slice(None)), advantages(8, slice(None))
    assert_close(tight, padded[:, : tight.shape[1]])
    assert_close(tight[:1], advantages(None, slice(0, 1)))


def last_free(lengths: list[int], columns: int | None) -> Tensor:
    """No row terminates: the hardest case, for only the mask can stop the recursion."""
    return torch.zeros_like(mask_of(lengths, columns))


def test_errors_name_field_value_and_fix() -> None:
    rollout = rollout_of([2])
    with pytest.raises(ValueError, match=r"gamma: got 1.5; use a number in \[0, 1\]"):
        discounts_and_lambdas(rollout, 1.5, 0.9)
    with pytest.raises(ValueError, match="gae_lambda: got -1"):
        discounts_and_lambdas(rollout, 1.0, -1)
    one = torch.ones(1, 2)
    with pytest.raises(ValueError, match="discounts: got shape"):
        discounted_returns(one, torch.ones(2), torch.zeros(1))
    with pytest.raises(ValueError, match="lambdas: got shape"):
        gae(one, one, one, one, torch.ones(2))
    with pytest.raises(ValueError, match="next_values: got shape"):
        td_target(one, torch.ones(2), one)
