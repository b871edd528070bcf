"""Per-step losses: values by eye, gradients by reason."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.losses import (
    categorical_entropy,
    clipped_value_loss,
    pairwise_loss,
    policy_gradient_loss,
    ppo_clip_loss,
    q_learning_gradient,
    q_learning_loss,
    truncated_importance,
)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_policy_gradient_loss_treats_advantages_as_constants() -> None:
    logprobs, advantages = f64(-1, -2), f64(3, -4)
    loss = policy_gradient_loss(logprobs, advantages)
    assert loss.tolist() == [3.0, -8.0]
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-3.0, 4.0]
    assert advantages.grad is None


def test_at_ratio_1_the_ppo_gradient_is_the_policy_gradient() -> None:
    old, advantages = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    gradients = []
    for loss in (
        lambda new: ppo_clip_loss(new, old, advantages, clip_low=0.2, clip_high=0.2),
        lambda new: policy_gradient_loss(new, advantages),
    ):
        new = old.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(new).sum(), new)[0])
    assert_close(*gradients)


def test_ppo_bounds_are_separate() -> None:
    """DAPO's clip-higher: ρ = 1.25 is inside the upper bound .28 and outside .2."""
    new, old, one = f64(math.log(1.25)), f64(0.0), f64(1.0)
    inside = ppo_clip_loss(new, old, one, clip_low=0.2, clip_high=0.28)
    assert_close(inside, f64(-1.25))
    assert_close(ppo_clip_loss(new, old, one, clip_low=0.28, clip_high=0.2), f64(-1.2))
    inside.sum().backward()
    assert old.grad is None
    assert one.grad is None
    assert new.grad is not None


def test_value_loss_takes_the_worse_of_the_two() -> None:
    values, old, returns = f64(2.0, 2.0, 0.1), f64(0.0, 0.0, 0.0), f64(1.0, 3.0, 1.0)
    loss = clipped_value_loss(values, old, returns, clip=0.5)
    assert_close(loss, f64(0.5 * 1.0, 0.5 * 6.25, 0.5 * 0.81))
    loss.sum().backward()
    assert values.grad is not None
    assert_close(values.grad, torch.tensor([1.0, 0.0, -0.9], dtype=torch.float64))
    assert old.grad is None
    assert returns.grad is None


def test_value_loss_without_a_clip_is_half_the_square() -> None:
    assert_close(clipped_value_loss(f64(3.0), None, f64(1.0), clip=None), f64(2.0))


def test_q_loss_is_huber_on_the_action_taken() -> None:
    q = torch.tensor([[1.0, 9.0], [0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    targets = f64(1.5, 1.0)
    loss = q_learning_loss(q, torch.tensor([0, 1]), targets, huber_delta=1.0)
    assert_close(loss, f64(0.125, 2.5))
    loss.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[-0.5, 0.0], [0.0, 1.0]]
    assert targets.grad is None
    assert_close(q_learning_loss(q, torch.tensor([0, 1]), targets, huber_delta=2.0), f64(0.125, 4.0))
    assert_close(q_learning_loss(q, torch.tensor([0, 1]), targets, huber_delta=None), f64(0.125, 4.5))


@pytest.mark.parametrize("delta", [None, 1.0, 0.3])
def test_the_gradient_of_the_q_loss_is_autograds(delta: float | None) -> None:
    """On errors of every size and sign."""
    generator = torch.Generator().manual_seed(0)
    q = (3 * torch.randn(64, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    actions = torch.randint(3, (64,), generator=generator)
    targets = torch.randn(64, generator=generator, dtype=torch.float64)
    mean = q_learning_loss(q, actions, targets, huber_delta=delta).mean()
    (expected,) = torch.autograd.grad(mean, q)
    loss, gradient = q_learning_gradient(q.detach(), actions, targets, huber_delta=delta)
    assert_close(loss, mean.detach(), atol=1e-12, rtol=0)
    assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_entropy_is_ln_n_at_most_and_survives_forbidden_actions() -> None:
    assert_close(categorical_entropy(torch.zeros(4, dtype=torch.float64)), torch.tensor(math.log(4)).double())
    logits = torch.tensor([0.0, 0.0, -math.inf], dtype=torch.float64, requires_grad=True)
    entropy = categorical_entropy(logits)
    entropy.backward()
    assert_close(entropy, torch.tensor(math.log(2)).double())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_entropy_gradient() -> None:
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(categorical_entropy, logits)


def test_pairwise_loss_is_ln_2_at_a_tie_and_never_overflows() -> None:
    assert_close(pairwise_loss(f64(1.0), f64(1.0)), f64(math.log(2)))
    assert_close(pairwise_loss(f64(3.0), f64(1.0), margin=2.0), f64(math.log(2)))
    assert_close(pairwise_loss(f64(3.0), f64(1.0)), f64(-math.log(1 / (1 + math.exp(-2)))))
    assert_close(pairwise_loss(f64(-1e4), f64(0.0)), f64(1e4))
    assert_close(pairwise_loss(f64(1.0, 2.0), f64(0.0, 0.0), f64(1.0, 2.0)), f64(math.log(2), math.log(2)))


def test_centring_adds_the_square_of_the_sum() -> None:
    assert_close(pairwise_loss(f64(2.0), f64(1.0), centering=0.01), pairwise_loss(f64(2.0), f64(1.0)) + 0.09)


def test_errors_name_field_value_and_fix() -> None:
    one, two = torch.ones(1), torch.ones(2)
    bounds = {"clip_low": 0.2, "clip_high": 0.2}
    cases = [
        (lambda: policy_gradient_loss(two, one), "advantages: got shape"),
        (lambda: ppo_clip_loss(two, one, two, **bounds), "old_logprobs: got shape"),
        (lambda: ppo_clip_loss(two, two, one, **bounds), "advantages: got shape"),
        (lambda: clipped_value_loss(two, two, one, clip=None), "returns: got shape"),
        (lambda: clipped_value_loss(two, one, two, clip=0.2), "old_values: got shape"),
        (lambda: clipped_value_loss(two, None, two, clip=0.2), "old_values: got None with clip=0.2"),
        (lambda: q_learning_loss(torch.ones(2, 3), one.long(), two), "actions: got shape"),
        (lambda: q_learning_loss(torch.ones(2, 3), two.long(), one), "targets: got shape"),
        (lambda: q_learning_loss(torch.ones(2, 3), two.long(), two, huber_delta=0), "huber_delta: got 0"),
        (lambda: pairwise_loss(two, one), "rejected: got shape"),
        (lambda: pairwise_loss(two, two, one), "margin: got shape"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_actions_of_a_sampler_that_is_not_quite_the_policy_are_weighted() -> None:
    """E_μ[w f] = E_π[f] where no weight is cut: here for every function of three actions at once."""
    policy, sampler = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.4, 0.35, 0.25]])
    weights = truncated_importance(policy.log(), sampler.log(), cap=2.0)
    assert_close(sampler * weights, policy)
    assert_close(truncated_importance(policy.log(), sampler.log(), cap=1.0), torch.tensor([[1.0, 0.3 / 0.35, 0.8]]))
    assert truncated_importance(policy.log(), policy.log(), cap=1.0).tolist() == [[1.0, 1.0, 1.0]]


def test_weights_carry_no_gradient_and_a_cap_below_one_is_refused() -> None:
    logprobs = torch.zeros(1, 2, requires_grad=True)
    assert not truncated_importance(logprobs, torch.ones(1, 2), cap=2.0).requires_grad
    with pytest.raises(ValueError, match=r"cap: got 0\.5"):
        truncated_importance(logprobs, torch.ones(1, 2), cap=0.5)
