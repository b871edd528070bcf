"""Scores of a search, its noise and its policy, and the loss: numbers that can be checked by hand."""

import math

import pytest
import torch

from pipeline.rl.search import Puct, Ucb, half_life, noisy_priors, puct_scores, search_loss, ucb_scores, visit_policy

PRIORS = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
VISITS = torch.tensor([[6.0, 2.0, 0.0, 0.0]])
TOTALS = torch.tensor([[3.0, -1.0, 0.0, 0.0]])
VALUES = torch.tensor([0.7])


def test_puct_by_hand() -> None:
    scores = puct_scores(PRIORS, VISITS, TOTALS, VALUES, exploration=2.0, reduction=0.1)
    # √(1 + 8) = 3. Tried moves: Q + 2 P · 3 / (1 + N). The third: what s is worth, (0.7 + 2) / 9, less 0.1 √0.8.
    third = 0.3 - 0.1 * math.sqrt(0.8) + 2 * 0.2 * 3
    assert scores[0, :3].tolist() == pytest.approx([0.5 + 3.0 / 7, -0.5 + 1.8 / 3, third])
    assert scores[0, 3] == -math.inf


def test_puct_before_any_visit_follows_the_priors() -> None:
    nothing = torch.zeros(1, 4)
    scores = Puct(exploration=1.0, reduction=0.5)(PRIORS, nothing, nothing, VALUES)
    assert scores[0, :3].tolist() == pytest.approx([0.7 + 0.5, 0.7 + 0.3, 0.7 + 0.2])


def test_ucb_by_hand() -> None:
    visits, totals = torch.tensor([[4.0, 1.0, 3.0, 0.0]]), torch.tensor([[2.0, 1.0, -3.0, 0.0]])
    priors = torch.tensor([[0.4, 0.3, 0.3, 0.0]])
    scores = ucb_scores(priors, visits, totals, VALUES, exploration=0.5)
    log = math.log(8)
    expected = [0.5 + 0.5 * math.sqrt(log / 4), 1 + 0.5 * math.sqrt(log), -1 + 0.5 * math.sqrt(log / 3)]
    assert scores[0, :3].tolist() == pytest.approx(expected)
    assert scores[0, 3] == -math.inf


def test_ucb_tries_everything_once_by_priors() -> None:
    visits = torch.tensor([[0.0, 50.0, 0.0, 0.0]])
    scores = Ucb()(PRIORS, visits, visits, VALUES)
    assert scores[0].argsort(descending=True).tolist() == [0, 2, 1, 3]


def test_noise_is_a_mixture_over_legal_moves() -> None:
    mixed = noisy_priors(PRIORS, torch.tensor([[1.0, 2.0, 1.0, 5.0]]), 0.25)
    assert mixed[0].tolist() == pytest.approx([0.375 + 0.0625, 0.225 + 0.125, 0.15 + 0.0625, 0.0])
    assert noisy_priors(PRIORS, torch.zeros(1, 4), 0.25).sum().item() == pytest.approx(1)  # gammas may underflow


def test_normalised_gammas_have_dirichlets_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    priors = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).expand(20_000, 4) / 3
    exponential = -torch.rand(20_000, 4, generator=generator).log()  # Γ(1)
    drawn = noisy_priors(priors, exponential, 1.0)
    assert drawn.mean(dim=0)[:3].tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert drawn.var(dim=0)[0].item() == pytest.approx((1 / 3) * (2 / 3) / 4, rel=0.05)  # p(1 − p) / (Σα + 1)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [0.5, 0.25, 0.25]), (0.5, [16 / 24, 4 / 24, 4 / 24]), (0.0, [1, 0, 0]), (0.02, [1, 0, 0])],
)
def test_visit_policy(temperature: float, expected: list[float]) -> None:
    assert visit_policy(torch.tensor([[4.0, 2.0, 2.0]]), temperature)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_visit_policy_shares_ties_and_survives_many_visits() -> None:
    assert visit_policy(torch.tensor([[800.0, 800.0, 1.0]]), 0.0)[0].tolist() == [0.5, 0.5, 0.0]
    assert visit_policy(torch.tensor([[1e5, 1e5, 1.0]]), 0.05)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match="temperature"):
        visit_policy(torch.ones(1, 2), -1.0)


def test_half_life() -> None:
    assert [half_life(1.0, 0.2, ply, 10) for ply in (0, 10, 20)] == pytest.approx([1.0, 0.6, 0.4])


def test_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.25), -math.inf]])
    policies = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    loss, policy, value = search_loss(logits, torch.tensor([0.5]), policies, torch.tensor([-1.0]), value_coef=2.0)
    assert policy.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert value.item() == pytest.approx(2.25)
    assert loss.item() == pytest.approx(policy.item() + 4.5)


def test_the_loss_is_least_where_the_network_agrees() -> None:
    policies, targets = torch.tensor([[0.7, 0.3, 0.0]]), torch.tensor([0.4])
    logits = torch.zeros(1, 3, requires_grad=True)
    values = torch.zeros(1, requires_grad=True)
    masked = logits.masked_fill(torch.tensor([[False, False, True]]), -torch.inf)
    search_loss(masked, values, policies, targets)[0].backward()
    assert logits.grad is not None
    assert values.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.5 - 0.7, 0.5 - 0.3, 0.0])  # p − π
    assert values.grad.item() == pytest.approx(2 * (0 - 0.4))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="visits"):
        puct_scores(PRIORS, VISITS[:, :3], TOTALS, VALUES, exploration=1.0, reduction=0.0)
    with pytest.raises(ValueError, match="gammas"):
        noisy_priors(PRIORS, torch.ones(1, 3), 0.1)
    with pytest.raises(ValueError, match="targets"):
        search_loss(PRIORS, VALUES, PRIORS, torch.zeros(2))
