"""Models: the published optima of toy text, and a learned model that becomes the true one."""

import gymnasium
import numpy as np
import pytest
import torch

from pipeline.agents.environments import Environments, Experience
from pipeline.agents.maze import Maze, shortest
from pipeline.agents.model import LearnedModel, model_of
from pipeline.rl.planning import policy_evaluation, value_iteration


def test_the_exact_value_of_a_maze_is_its_shortest_way() -> None:
    maze = Maze(size=(4, 5), loops=0.2, seed=3)
    q = value_iteration(*model_of(maze), gamma=1.0)
    assert q[maze.start].max().item() == -float(shortest(maze.rows) or 0)


@pytest.mark.parametrize(("size", "discounted", "chance"), [("4x4", 0.5420, 0.8235), ("8x8", 0.4146, 1.0)])
def test_slippery_frozen_lake(size: str, discounted: float, chance: float) -> None:
    """V* of the start at γ = .99, and the best chance to reach the goal with all the time in the world (γ = 1)."""
    model = model_of(gymnasium.make("FrozenLake-v1", map_name=size, is_slippery=True))
    assert value_iteration(*model, gamma=0.99)[0].max().item() == pytest.approx(discounted, abs=1e-4)
    assert value_iteration(*model, gamma=1.0, tolerance=1e-8)[0].max().item() == pytest.approx(chance, abs=2e-3)


def test_cliff_walking_costs_thirteen_steps() -> None:
    q = value_iteration(*model_of(gymnasium.make("CliffWalking-v1")), gamma=1.0)
    assert q[36].max().item() == -13.0


def test_taxi_is_worth_7_93_on_average() -> None:
    env = gymnasium.make("Taxi-v4")
    rewards, transitions = model_of(env)
    best = value_iteration(rewards, transitions, 1.0).amax(1)
    start = torch.as_tensor(env.unwrapped.initial_state_distrib, dtype=torch.float64)  # type: ignore[attr-defined]
    assert (best * start).sum().item() == pytest.approx(7.93, abs=0.01)


def test_a_learned_model_becomes_the_true_one_where_it_has_been() -> None:
    text = "S..\n.#.\n..G"
    envs = Environments("Maze-v0", 4, seed=0, options={"text": text, "max_episode_steps": 30})
    learned = LearnedModel(8, 4)
    rng = np.random.default_rng(0)
    for _ in range(500):
        learned.remember(Experience.of(envs.step(rng.integers(4, size=4))))
    rewards, transitions = model_of(Maze(text=text))
    goal = 7
    assert learned.seen[:goal].all()
    assert not learned.seen[goal].any()
    mean, moves = learned.estimate()
    torch.testing.assert_close(mean, rewards)
    torch.testing.assert_close(moves[:goal], transitions[:goal])


def test_the_unknown_is_as_good_as_one_says() -> None:
    learned = LearnedModel(2, 2)
    assert learned.estimate(unseen=5.0)[0].tolist() == [[5.0, 5.0], [5.0, 5.0]]
    always_first = torch.tensor([[1.0, 0.0]] * 2, dtype=torch.float64)
    assert policy_evaluation(*learned.estimate(unseen=5.0), always_first, 1.0).tolist() == [5.0, 5.0]


def test_an_environment_without_a_table_is_named() -> None:
    with pytest.raises(ValueError, match="no transition table"):
        model_of(gymnasium.make("CartPole-v1"))
