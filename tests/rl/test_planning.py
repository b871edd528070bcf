"""Planning against answers a reader can check by eye."""

import pytest
import torch

from pipeline.rl.planning import bellman_backup, policy_evaluation, value_iteration


def corridor(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States 0…length−1; action 1 goes right and leaves the last state for good, action 0 goes left; −1 a step."""
    rewards = torch.full((length, 2), -1.0, dtype=torch.float64)
    transitions = torch.zeros(length, 2, length, dtype=torch.float64)
    for s in range(length):
        transitions[s, 0, max(0, s - 1)] = 1
        if s + 1 < length:
            transitions[s, 1, s + 1] = 1
    return rewards, transitions


def test_one_backup_is_reward_plus_discounted_value() -> None:
    rewards, transitions = corridor(2)
    q = bellman_backup(rewards, transitions, torch.tensor([5.0, 7.0], dtype=torch.float64), 0.1)
    torch.testing.assert_close(q, torch.tensor([[-0.5, -0.3], [-0.5, -1.0]], dtype=torch.float64))


def test_the_way_out_costs_its_length() -> None:
    q = value_iteration(*corridor(5), gamma=1.0)
    assert q.amax(dim=1).tolist() == [-5.0, -4.0, -3.0, -2.0, -1.0]
    assert q.argmax(dim=1).tolist() == [1] * 5


def test_an_endless_reward_of_one_is_worth_one_over_one_minus_gamma() -> None:
    rewards, transitions = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    assert value_iteration(rewards, transitions, 0.9).item() == pytest.approx(10.0, abs=1e-7)
    assert policy_evaluation(rewards, transitions, torch.ones(1, 1, dtype=torch.float64), 0.9).item() == pytest.approx(
        10
    )


def test_the_random_walk_of_five_states_has_values_of_sixths() -> None:
    """Sutton & Barto 2018, Example 6.2: 1 at the right end, 0 at the left, V = 1/6 … 5/6."""
    rewards = torch.zeros(5, 2, dtype=torch.float64)
    rewards[4, 1] = 1
    transitions = torch.zeros(5, 2, 5, dtype=torch.float64)
    for s in range(5):
        if s > 0:
            transitions[s, 0, s - 1] = 1
        if s < 4:
            transitions[s, 1, s + 1] = 1
    values = policy_evaluation(rewards, transitions, torch.full((5, 2), 0.5, dtype=torch.float64), 1.0)
    assert values.tolist() == pytest.approx([k / 6 for k in range(1, 6)])


def test_what_cannot_end_is_refused_at_gamma_one() -> None:
    rewards, transitions = torch.ones(1, 1), torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match="gamma below 1"):
        value_iteration(rewards, transitions, 1.0, sweeps=50)
    with pytest.raises(ValueError, match="never ends"):
        policy_evaluation(rewards, transitions, torch.ones(1, 1), 1.0)


def test_bad_shapes_and_discounts_are_named() -> None:
    rewards, transitions = corridor(3)
    with pytest.raises(ValueError, match="transitions"):
        bellman_backup(rewards, transitions[:2], torch.zeros(3), 0.9)
    with pytest.raises(ValueError, match="values"):
        bellman_backup(rewards, transitions, torch.zeros(2, dtype=torch.float64), 0.9)
    with pytest.raises(ValueError, match="policy"):
        policy_evaluation(rewards, transitions, torch.ones(3, 1), 0.9)
    with pytest.raises(ValueError, match="gamma"):
        value_iteration(rewards, transitions, 1.5)
