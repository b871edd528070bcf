"""Learning in a table: numbers by eye, and Q-learning and SARSA against exact solutions."""

import pytest
import torch

from pipeline.agents.maze import Maze
from pipeline.agents.model import model_of
from pipeline.rl.action_values import dueling, epsilon_greedy, explore, polyak_step, successor_values, td_step
from pipeline.rl.planning import policy_evaluation, value_iteration
from pipeline.rl.returns import td_target


def test_three_ways_to_look_at_a_successor() -> None:
    q = torch.tensor([[1.0, 3.0], [4.0, 0.0]])
    assert successor_values(q, "max").tolist() == [3.0, 4.0]
    assert successor_values(q, "taken", actions=torch.tensor([0, 1])).tolist() == [1.0, 0.0]
    expected = successor_values(q, "expected", probabilities=epsilon_greedy(q, 0.5))
    assert expected.tolist() == pytest.approx([0.75 * 3 + 0.25 * 1, 0.75 * 4])


def test_a_step_goes_a_tenth_of_the_way() -> None:
    q = torch.zeros(2, 2)
    errors = td_step(q, torch.tensor([1]), torch.tensor([0]), torch.tensor([5.0]), torch.tensor([0.1]))
    assert errors.tolist() == [5.0]
    torch.testing.assert_close(q, torch.tensor([[0.0, 0.0], [0.5, 0.0]]))


def test_equal_entries_count_by_their_mean() -> None:
    q, cell = torch.zeros(1, 2), torch.zeros(3, dtype=torch.int64)
    td_step(q, cell, torch.tensor([0, 0, 1]), torch.tensor([1.0, 3.0, 7.0]), torch.full((3,), 0.5))
    assert q.tolist() == [[1.0, 3.5]]


def test_ties_share_and_exploration_is_even() -> None:
    probabilities = epsilon_greedy(torch.tensor([[2.0, 2.0, 0.0, 0.0]]), 0.2)
    torch.testing.assert_close(probabilities, torch.tensor([[0.45, 0.45, 0.05, 0.05]]))
    with pytest.raises(ValueError, match="epsilon"):
        epsilon_greedy(torch.zeros(1, 2), 1.1)


def test_exploring_draws_from_the_probabilities() -> None:
    q = torch.tensor([[0.0, 2.0, 1.0]]).expand(30_000, 3)
    drawn = explore(q, 0.3, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, epsilon_greedy(q[:1], 0.3)[0], atol=0.01, rtol=0)
    assert (explore(q, 0.0) == 1).all()


def test_what_a_kind_needs_is_named() -> None:
    q = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="actions"):
        successor_values(q, "taken")
    with pytest.raises(ValueError, match="probabilities"):
        successor_values(q, "expected")
    with pytest.raises(ValueError, match="kind"):
        successor_values(q, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="targets"):
        td_step(q, torch.tensor([0]), torch.tensor([0]), torch.zeros(2), torch.ones(1))


@pytest.mark.parametrize("kind", ["max", "expected"])
def test_learning_from_every_move_reaches_the_exact_values(kind: str) -> None:
    """Sweeps over all (s, a) in random order: Q* for Q-learning, Q of the ε-greedy policy for Expected SARSA."""
    maze = Maze(text="S..\n.#.\n..G")
    rewards, transitions = model_of(maze)
    generator = torch.Generator().manual_seed(0)
    q = torch.zeros_like(rewards)
    cells = torch.cartesian_prod(torch.arange(len(q)), torch.arange(4))
    discounts = transitions.sum(2)
    after = transitions.argmax(2)
    for _ in range(200):
        for s, a in cells[torch.randperm(len(cells), generator=generator)]:
            row = q[after[s, a]][None]
            value = successor_values(row, kind, probabilities=epsilon_greedy(row, 0.3))  # type: ignore[arg-type]
            y = td_target(rewards[s, a][None], value, discounts[s, a][None] * 0.9)
            td_step(q, s[None], a[None], y, torch.full((1,), 0.5, dtype=q.dtype))
    if kind == "max":
        torch.testing.assert_close(q, value_iteration(rewards, transitions, 0.9), atol=1e-4, rtol=0)
    else:
        policy = epsilon_greedy(q, 0.3)
        values = policy_evaluation(rewards, transitions, policy, 0.9)
        torch.testing.assert_close((policy * q).sum(1), values, atol=1e-4, rtol=0)


def test_a_target_follows_at_its_rate() -> None:
    target, online = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    polyak_step([target], [online], 0.25)
    assert target.tolist() == [1.5, 2.0]
    polyak_step([target], [online], 1.0)
    assert target.tolist() == online.tolist() == [3.0, 2.0]


def test_duelling_heads_add_up_to_the_value() -> None:
    values, advantages = torch.tensor([[2.0]]), torch.tensor([[1.0, 4.0, 1.0]])
    q = dueling(values, advantages)
    torch.testing.assert_close(q, torch.tensor([[1.0, 4.0, 1.0]]))
    torch.testing.assert_close(q.mean(1, keepdim=True), values)
    torch.testing.assert_close(dueling(values, advantages + 9.0), q)
    with pytest.raises(ValueError, match="values"):
        dueling(torch.zeros(1, 3), advantages)
