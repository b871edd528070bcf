"""DPO's loss in numbers checked by hand, against its definition and against TRL's."""

import math

import pytest
import torch
from torch.testing import assert_close

from pipeline.rl.losses import dpo_loss


def pairs(*columns: float) -> list[torch.Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in columns]


def test_where_nothing_was_learned_it_is_ln_2() -> None:
    assert_close(dpo_loss(*pairs(-5, -9, -5, -9), beta=0.3), torch.tensor([math.log(2)], dtype=torch.float64))


def test_by_hand() -> None:
    """Chosen: −4 against −5 is +1 nat; rejected: −10 against −9 is −1. β · 2 = 0.2, and −log σ(.2) = .5981."""
    loss = dpo_loss(*pairs(-4, -10, -5, -9), beta=0.1)
    assert_close(loss, torch.tensor([0.598138869], dtype=torch.float64))
    worse = dpo_loss(*pairs(-10, -4, -9, -5), beta=0.1)  # the other way round: .2 more
    assert_close(worse, torch.tensor([0.798138869], dtype=torch.float64))


def test_the_gradient_is_beta_times_how_wrong_it_is() -> None:
    """dL/d log π_c = −β σ(−β·margin) = −.1 · σ(−.2) = −.0450166, and the opposite for the rejected one."""
    chosen, rejected, *reference = pairs(-4, -10, -5, -9)
    chosen.requires_grad_(True)
    rejected.requires_grad_(True)
    reference[0].requires_grad_(True)
    dpo_loss(chosen, rejected, *reference, beta=0.1).backward()
    assert_close(chosen.grad, torch.tensor([-0.0450166], dtype=torch.float64), atol=1e-7, rtol=0)
    assert_close(rejected.grad, -chosen.grad)  # type: ignore[operator]
    assert reference[0].grad is None


def test_the_optimum_is_that_of_the_regularised_reward() -> None:
    """With preferences of Bradley–Terry at reward r, the minimum of the expected loss is π* ∝ π_ref e^{r/β}."""
    reward = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)
    reference = torch.log_softmax(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), 0)
    beta = 0.7
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    i, j = torch.tensor([(a, b) for a in range(3) for b in range(3) if a != b]).T
    probability = torch.sigmoid(reward[i] - reward[j])  # that i is preferred to j

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        policy = torch.log_softmax(logits, 0)
        loss = (probability * dpo_loss(policy[i], policy[j], reference[i], reference[j], beta=beta)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    best = torch.softmax(reference + reward / beta, 0)
    assert_close(torch.softmax(logits, 0).detach(), best, atol=1e-5, rtol=0)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="ref_rejected"):
        dpo_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(3), beta=0.1)
