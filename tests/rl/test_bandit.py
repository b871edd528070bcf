"""Does the whole loop find the optimum that is known in closed form? Sampled, through the real `update`.

π* ∝ π_ref e^{r/β}: if the sign, the price, the baseline, the clip or the loop were wrong, it would end
elsewhere.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.kl import kl_k1
from pipeline.rl.rollout import Rollout
from pipeline.rl.update import Objective, update

from .builders import TabularPolicy

REWARDS = torch.tensor([1.0, 0.0, 0.5, -1.0, 2.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
ROWS, STEPS = 512, 200


def act(policy: TabularPolicy, generator: torch.Generator) -> Rollout:
    """ROWS one-step completions of one prompt."""
    with torch.no_grad():
        probabilities = torch.softmax(policy.logits[0], 0)
        actions = torch.multinomial(probabilities, ROWS, replacement=True, generator=generator)[:, None]
        context = {"states": torch.zeros_like(actions)}
        now = policy.evaluate(context, actions)
    real = torch.ones(ROWS, 1, dtype=torch.bool)
    rollout = Rollout(context, actions, now.logprobs, torch.zeros_like(now.logprobs), real, real, ~real)
    return rollout if now.values is None else rollout.with_values(now.values)


def learned(
    algorithm: Any,
    objective: Objective,
    price: float,
    seed: int = 0,
    epochs: int = 1,
    minibatches: int = 1,
    **options: Any,
) -> Tensor:
    """The policy after STEPS of act, judge, credit, improve; the last third of the iterates averaged.

    Averaging takes the sampling noise of the last steps out, so that the limit is what is tested.
    """
    generator = torch.Generator().manual_seed(seed)
    critic = nn.Parameter(torch.zeros(1, dtype=torch.float64)) if algorithm == "ppo" else None
    policy = TabularPolicy(nn.Parameter(REFERENCE.log()[None].clone()), critic)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    average = torch.zeros(5, dtype=torch.float64)
    for step in range(STEPS):
        rollout = act(policy, generator)
        ref_logprobs = REFERENCE.log()[rollout.actions]
        kl = kl_k1(rollout.logprobs, ref_logprobs)
        scores = REWARDS[rollout.actions[:, 0]]
        rollout = rollout.with_rewards(-price * kl, final=scores, ref_logprobs=ref_logprobs)
        advantages, returns = estimate_advantages(algorithm, rollout, **options)
        update(
            policy, optimizer, rollout, advantages, returns, objective,
            epochs=epochs, minibatch_size=ROWS // minibatches, generator=generator,
        )  # fmt: skip
        schedule.step()
        if step >= STEPS * 2 // 3:
            average += torch.softmax(policy.logits[0].detach(), 0) / (STEPS - STEPS * 2 // 3)
    return average


def distance(found: Tensor, beta: float) -> float:
    """Total variation to the closed form."""
    return float((found - torch.softmax(REFERENCE.log() + REWARDS / beta, 0)).abs().sum() / 2)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_ppo_with_a_critic_and_the_kl_in_the_reward(beta: float) -> None:
    """The critic has one number, an exact baseline here: every prompt is the same."""
    found = learned(
        "ppo", Objective(value_coef=1.0, value_clip=None), beta, epochs=2, minibatches=2, normalize="whiten"
    )
    assert distance(found, beta) <= 0.03


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("reinforce", {}),
        ("reinforce++", {}),
        ("rloo", {"group_size": 8}),
        ("grpo", {"group_size": 32}),
        ("dr_grpo", {"group_size": 8}),
    ],
)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_critic_free_with_the_kl_in_the_reward(algorithm: str, options: dict[str, Any], beta: float) -> None:
    assert distance(learned(algorithm, Objective(policy_loss="policy_gradient"), beta, **options), beta) <= 0.03


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("reinforce", {}), ("rloo", {"group_size": 8}), ("dr_grpo", {"group_size": 64})],
)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_with_k2_as_a_loss(algorithm: str, options: dict[str, Any], beta: float) -> None:
    """Not reinforce++ or grpo: they rescale the score and not the loss, so their β means another thing."""
    objective = Objective(policy_loss="policy_gradient", kl_coef=beta, kl_estimator="k2")
    assert distance(learned(algorithm, objective, 0.0, **options), beta) <= 0.03


def test_with_ppo_clip_and_k2_as_a_loss() -> None:
    objective = Objective(kl_coef=1.0, kl_estimator="k2")
    assert distance(learned("rloo", objective, 0.0, minibatches=2, group_size=8), 1.0) <= 0.03


@pytest.mark.parametrize(
    ("wrong", "objective", "price"),
    [
        ("the price paid twice", Objective(kl_coef=1.0, kl_estimator="k2"), 1.0),
        ("k3 as the loss", Objective(kl_coef=1.0, kl_estimator="k3"), 0.0),
        ("no price", Objective(), 0.0),
    ],
)
def test_the_wrong_kl_ends_elsewhere(wrong: str, objective: Objective, price: float) -> None:
    assert distance(learned("rloo", objective, price, group_size=8), 1.0) > 0.05, wrong


def test_two_runs_with_one_seed_are_equal() -> None:
    first, second = (learned("rloo", Objective(), 1.0, group_size=8) for _ in range(2))
    assert torch.equal(first, second)
