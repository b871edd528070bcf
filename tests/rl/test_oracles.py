"""Published or hand-computed answers, float64, to 1e-5 or to every digit printed."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pipeline.rl.advantages import group_normalized_advantages, rloo_advantages
from pipeline.rl.kl import AdaptiveKL, kl_k1, kl_k2, kl_k3
from pipeline.rl.losses import policy_gradient_loss, ppo_clip_loss, q_learning_loss
from pipeline.rl.returns import discounts_and_lambdas, gae, td_target
from pipeline.rl.tensors import aggregate

from .builders import mask_of, rollout_of


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, expected: Sequence[float], digits: int = 6) -> None:
    """Equal to the digits given: half a unit of the last one, plus rounding."""
    torch.testing.assert_close(found.detach(), f64(*expected), rtol=0, atol=0.51 * 10**-digits)


@pytest.mark.parametrize(
    ("lam", "answer"), [(0.0, (-0.1, -0.1, 0.7)), (0.95, (0.43675, 0.565, 0.7)), (1.0, (0.5, 0.6, 0.7))]
)
def test_1_gae(lam: float, answer: Sequence[float]) -> None:
    rollout = rollout_of([3]).with_rewards(f64(0, 0, 1)[None]).with_values(f64(0.5, 0.4, 0.3)[None])
    discounts, lambdas = discounts_and_lambdas(rollout, 1.0, lam)
    assert rollout.values is not None
    assert rollout.next_values is not None
    close(gae(rollout.rewards, rollout.values, rollout.next_values, discounts, lambdas)[0], answer)


def test_2_softmax_bandit_policy_gradient() -> None:
    theta = f64(0.2, -0.1, 0.5).requires_grad_()
    logprobs = torch.log_softmax(theta, 0)
    loss = (logprobs.exp().detach() * policy_gradient_loss(logprobs, f64(1, 2, 4))).sum()
    close(-torch.autograd.grad(loss, theta)[0], (-0.50149, -0.13182, 0.63331), digits=5)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "flows"),
    [(1, 1.5, -1.2, False), (-1, 1.5, 1.5, True), (1, 0.5, -0.5, True), (-1, 0.5, 0.8, False)],
)
def test_3_ppo_clip(advantage: float, ratio: float, loss: float, flows: bool) -> None:
    logprobs = f64(math.log(ratio)).requires_grad_()
    found = ppo_clip_loss(logprobs, f64(0), f64(advantage), clip_low=0.2, clip_high=0.2)
    close(found, (loss,))
    assert bool(torch.autograd.grad(found.sum(), logprobs)[0] != 0) is flows


def test_6_kl_estimators() -> None:
    p, q = f64(0.5, 0.3, 0.2), f64(0.4, 0.4, 0.2)
    for estimator, value, gradient in (
        (kl_k1, 0.0252672, (0.0, 0.0, 0.0)),
        (kl_k2, 0.0248624, (0.09894, -0.09388, -0.00505)),
        (kl_k3, 0.0252672, (0.1, -0.1, 0.0)),
    ):
        theta = p.log().requires_grad_()
        mean = (p * estimator(torch.log_softmax(theta, 0), q.log())).sum()
        close(mean[None], (value,), digits=7)
        close(torch.autograd.grad(mean, theta)[0], gradient, digits=5)


def test_7_two_step_sequence_kl() -> None:
    """Σ over the four sequences of their probability times the sum of k1 over both tokens."""
    first, second = f64(0.7, 0.3), torch.stack([f64(0.9, 0.1), f64(0.2, 0.8)])
    pairs = torch.stack([first[:, None].expand(2, 2), second], -1).view(4, 2)  # [sequence, token]
    k1 = kl_k1(pairs.log(), torch.full((4, 2), 0.5, dtype=torch.float64).log())
    close((pairs.prod(1) * k1.sum(1)).sum()[None], (0.3977513,), digits=7)


def test_8_group_advantages() -> None:
    scores = f64(1, 2, 3, 6)[None]
    close(rloo_advantages(scores)[0], (-8 / 3, -4 / 3, 0, 4))
    close(group_normalized_advantages(scores)[0], (-0.92578, -0.46289, 0, 1.38867), digits=5)


@pytest.mark.parametrize(("how", "answer"), [("sequence", 1.5), ("token", 1.8), ("constant", 0.9)])
def test_9_normalisers(how: str, answer: float) -> None:
    losses = f64(1, 2)[:, None].expand(2, 8)
    close(aggregate(losses, mask_of([2, 8]), how, max_length=10)[None], (answer,))


def tilted(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """π* ∝ π_ref e^{r/β}, the exact optimum of E r − β KL(π ‖ π_ref)."""
    return torch.softmax(reference.log() + rewards / beta, 0)


def test_10_regularised_bandit_in_closed_form() -> None:
    rewards, reference = f64(1, 0, 0.5, -1, 2), f64(0.4, 0.3, 0.15, 0.1, 0.05)
    for beta, objective, kl in ((1.0, 0.713372, 0.224018), (0.5, 0.928680, 0.829087)):
        best = tilted(reference, rewards, beta)
        price = (best * kl_k1(best.log(), reference.log())).sum()
        close(price[None], (kl,))
        close(((best * rewards).sum() - beta * price)[None], (objective,))
    close(tilted(reference, rewards, 1.0), (0.53277, 0.14700, 0.12118, 0.01803, 0.18103), digits=5)


def test_10_the_optimum_is_where_the_expected_gradient_of_our_losses_is_zero() -> None:
    """KL in the reward (k1 detached) and KL as a loss (k2) agree; both at once would not."""
    rewards, reference, beta = f64(1, 0, 0.5, -1, 2), f64(0.4, 0.3, 0.15, 0.1, 0.05), 0.5
    theta = tilted(reference, rewards, beta).log().requires_grad_()
    logprobs = torch.log_softmax(theta, 0)
    weight = logprobs.exp().detach()
    priced = rewards - beta * kl_k1(logprobs.detach(), reference.log())
    in_reward = weight * policy_gradient_loss(logprobs, priced)
    as_loss = weight * (policy_gradient_loss(logprobs, rewards) + beta * kl_k2(logprobs, reference.log()))
    twice = in_reward + weight * beta * kl_k2(logprobs, reference.log())
    for loss, is_zero in ((in_reward, True), (as_loss, True), (twice, False)):
        gradient = torch.autograd.grad(loss.sum(), theta, retain_graph=True)[0]
        assert (float(gradient.abs().max()) < 1e-12) is is_zero


def test_11_adaptive_kl() -> None:
    for observed, answer in ((12.0, 0.151536), (5.7, 0.149616)):
        close(f64(AdaptiveKL(0.15, 6.0).update(observed, 512)), (answer,))


def test_14_over_optimisation() -> None:
    """Following a proxy too far: gold rises, peaks and falls while the proxy still rises."""
    reference, gold, proxy = f64(0.9, 0.099, 0.001), f64(0, 1, -2), f64(0, 1, 3)
    betas = torch.arange(3.0, 0.3, -0.001, dtype=torch.float64)
    policies = torch.stack([tilted(reference, proxy, float(beta)) for beta in betas])
    golds = policies @ gold
    peak = int(golds.argmax())
    assert abs(float(betas[peak]) - 0.806) < 1e-3
    close(golds[peak][None], (0.20226,), digits=5)
    kl = (policies[peak] * kl_k1(policies[peak].log(), reference.log())).sum()
    # Looser than the rest: gold is flat at its peak, where the KL moves by 8e-4 for every .001 of β.
    assert abs(float(kl) - 0.2008) < 5e-4
    late = tilted(reference, proxy, 0.5)
    close(torch.stack([late @ gold, late @ proxy]), (-0.0370, 0.9542), digits=4)
    assert bool(((policies @ proxy).diff() > 0).all())


def test_16_reward_1_forever_is_worth_1_over_1_minus_gamma() -> None:
    gamma, value = 0.9, torch.zeros(1, dtype=torch.float64)
    for _ in range(200):
        value = td_target(torch.ones_like(value), value, torch.full_like(value, gamma))
    close(value, (1 / (1 - gamma),))


def test_16_a_time_limit_bootstraps_to_the_same_value() -> None:
    """Ten steps cut by a limit, V = 10 everywhere: nothing was better or worse than expected."""
    mask = torch.ones(1, 10, dtype=torch.bool)
    limit = torch.zeros_like(mask)
    limit[0, -1] = True
    ten, one = torch.full((1, 10), 10.0, dtype=torch.float64), torch.ones(1, 10, dtype=torch.float64)
    never = torch.zeros_like(mask)
    for truncated, terminated, last in ((limit, never, 0.0), (never, limit, -9.0)):
        rollout = rollout_of(
            [10], truncated=truncated, terminated=terminated, **dict.fromkeys(("rewards", "logprobs"), one),
            actions=mask.long(), context={}, values=ten, next_values=ten, ref_logprobs=None,
        )  # fmt: skip
        advantages = gae(one, ten, ten, *discounts_and_lambdas(rollout, 0.9, 0.95))
        close(advantages[0, -1:], (last,))


def test_16_random_walk() -> None:
    """Five states, exits left (reward 0) and right (reward 1): V = i/6, by expected TD updates."""
    values = torch.zeros(5, dtype=torch.float64)
    rewards, inside = f64(0, 0, 0, 0, 1), torch.ones(5, dtype=torch.float64)
    left_end, right_end = inside.clone(), inside.clone()
    left_end[0], right_end[-1] = 0.0, 0.0
    for _ in range(400):
        left = td_target(torch.zeros_like(values), values.roll(1), left_end)
        right = td_target(rewards, values.roll(-1), right_end)
        values = (left + right) / 2
    close(values, [i / 6 for i in range(1, 6)])


def test_16_random_walk_advantages_average_to_zero() -> None:
    """With the true values, the expected GAE of either move cancels: δ is ± 1/6 at every state."""
    values = f64(*(i / 6 for i in range(1, 6)))
    ones, end = torch.ones(1, 3, dtype=torch.float64), f64(1, 1, 0)[None]
    right = gae(f64(0, 0, 1)[None], values[2:][None], f64(4 / 6, 5 / 6, 0)[None], end, 0 * ones)
    left = gae(f64(0, 0, 0)[None], values[[2, 1, 0]][None], f64(2 / 6, 1 / 6, 0)[None], end, 0 * ones)
    close(right[0], (1 / 6,) * 3)
    close(left[0], (-1 / 6,) * 3)


def test_17_dqn_target() -> None:
    """r if terminated; r + γ max Q(true final observation) if truncated."""
    final_q = torch.tensor([[1.0, 5.0], [2.0, 4.0]], dtype=torch.float64)
    terminated = torch.tensor([True, False])
    targets = td_target(f64(1, 1), final_q.max(-1).values, 0.9 * (~terminated).double())
    close(targets, (1.0, 4.6))
    close(q_learning_loss(final_q, torch.tensor([0, 1]), targets), (0.0, 0.5 * 0.6**2))
