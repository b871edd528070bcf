"""Distributions against torch.distributions, and what has no closed form against many samples."""

import math

import pytest
import torch
from torch import distributions as reference
from torch.testing import assert_close

from pipeline.rl.distributions import Categorical, DiagonalGaussian, SquashedGaussian

MEAN = torch.tensor([[0.3, -1.0], [2.0, 0.0]], dtype=torch.float64)
LOG_STD = torch.tensor([-0.5, 0.2], dtype=torch.float64)


def test_softmax_agrees_with_torch() -> None:
    logits = torch.tensor([[1.0, 0.0, -2.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
    ours, theirs = Categorical(logits), reference.Categorical(logits=logits)
    actions = torch.tensor([2, 0])
    assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    assert_close(ours.entropy(), theirs.entropy())
    assert ours.mode().tolist() == [0, 2]


def test_choices_are_drawn_at_the_right_rates() -> None:
    logits = torch.tensor([0.0, math.log(2.0), math.log(5.0)]).expand(40_000, 3)
    drawn = Categorical(logits).sample(torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert_close(shares, torch.tensor([0.125, 0.25, 0.625]), atol=0.01, rtol=0)


def test_a_forbidden_choice_is_never_drawn() -> None:
    logits = torch.tensor([0.0, float("-inf")]).expand(1_000, 2)
    assert Categorical(logits).sample(torch.Generator().manual_seed(0)).sum() == 0


def test_gaussian_agrees_with_torch() -> None:
    ours = DiagonalGaussian(MEAN, LOG_STD)
    theirs = reference.Independent(reference.Normal(MEAN, LOG_STD.exp().expand(2, 2)), 1)
    actions = torch.tensor([[0.0, 0.5], [3.0, -1.0]], dtype=torch.float64)
    assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    assert_close(ours.entropy(), theirs.entropy())
    drawn = DiagonalGaussian(MEAN.expand(20_000, 2, 2), LOG_STD).sample(torch.Generator().manual_seed(0))
    assert_close(drawn.double().mean(0), MEAN, atol=0.03, rtol=0)
    assert_close(drawn.double().std(0), LOG_STD.exp().expand(2, 2), atol=0.03, rtol=0)


def test_squashing_changes_the_density_as_it_must() -> None:
    ours = SquashedGaussian(MEAN, LOG_STD)
    base = reference.Independent(reference.Normal(MEAN, LOG_STD.exp().expand(2, 2)), 1)
    theirs = reference.TransformedDistribution(base, [reference.TanhTransform(cache_size=1)])
    z = torch.tensor([[0.4, -0.2], [1.0, 0.3]], dtype=torch.float64)
    assert_close(ours.log_prob(z), theirs.log_prob(ours.squash(z)))


def test_far_out_actions_keep_a_finite_density_and_gradient() -> None:
    mean = torch.zeros(1, 1, requires_grad=True)
    log_prob = SquashedGaussian(mean, torch.zeros(1)).log_prob(torch.tensor([[30.0]]))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(mean.grad).all()


def test_squashed_entropy_agrees_with_samples() -> None:
    ours = SquashedGaussian(MEAN, LOG_STD)
    many = SquashedGaussian(MEAN.expand(200_000, 2, 2), LOG_STD)
    z = many.sample(torch.Generator().manual_seed(0)).double()
    assert_close(ours.entropy(), -many.log_prob(z).mean(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", [DiagonalGaussian, SquashedGaussian])
def test_gradients_reach_mean_and_width(kind: type) -> None:
    mean, log_std = MEAN.clone().requires_grad_(), LOG_STD.clone().requires_grad_()
    z = torch.ones(2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m, s: kind(m, s).log_prob(z), (mean, log_std))
    assert torch.autograd.gradcheck(lambda m, s: kind(m, s).entropy(), (mean, log_std))
