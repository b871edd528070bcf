"""Tables learn: exact optima, on- against off-policy on the cliff, planning that saves steps."""

import gymnasium
import pytest
import torch

from pipeline.agents.environments import Environments
from pipeline.agents.maze import Maze, dig
from pipeline.agents.model import model_of
from pipeline.agents.tabular import TabularAgent
from pipeline.rl.action_values import epsilon_greedy
from pipeline.rl.planning import value_iteration

MAZE = dig(3, 3, loops=0.3, seed=1)


def train(agent: TabularAgent, envs: Environments, steps: int, *, start: float = 1.0, end: float = 0.1) -> TabularAgent:
    while envs.steps < steps:
        agent.epsilon = start + (end - start) * envs.steps / steps
        step = envs.step(agent.act(envs.observations))
        agent.learn(step, envs.observations)
    return agent


def table(envs: Environments, **options: object) -> TabularAgent:
    return TabularAgent(int(envs.observation_space.n), int(envs.action_space.n), **options)  # type: ignore[attr-defined,arg-type]


def test_q_learning_reaches_the_exact_values_of_a_maze() -> None:
    envs = Environments("Maze-v0", 4, seed=0, options={"text": MAZE})
    agent = train(table(envs, gamma=0.9, rate=1.0, seed=0), envs, 12_000, end=0.5)
    exact = value_iteration(*model_of(Maze(text=MAZE)), gamma=0.9)
    goal = Maze(text=MAZE).goal
    others = torch.arange(len(exact)) != goal
    torch.testing.assert_close(agent.q[others], exact[others], atol=0.02, rtol=0)


def test_sarsa_walks_away_from_the_cliff_and_q_learning_along_it() -> None:
    """Sutton & Barto 2018, Example 6.6, ε = .1 throughout: SARSA gets more while learning, Q-learning the best path."""
    moves = gymnasium.make("CliffWalking-v1").unwrapped.P  # type: ignore[attr-defined]
    earned, best = {}, {}
    for method in ("sarsa", "q_learning"):
        envs = Environments("CliffWalking-v1", 1, seed=0)
        agent = train(table(envs, method=method, gamma=1.0, rate=0.5, seed=0), envs, 12_000, start=0.1, end=0.1)
        episodes = envs.finished()
        late = episodes[len(episodes) // 2 :]
        earned[method] = sum(episode.total for episode in late) / len(late)
        state, path = 36, 0
        while state != 47 and path < 50:
            state = moves[state][int(agent.q[state].argmax())][0][1]
            path += 1
        best[method] = path
    assert earned["sarsa"] > earned["q_learning"] + 5
    assert best["q_learning"] == 13
    assert best["sarsa"] > 13


def test_planning_learns_a_maze_from_fewer_steps() -> None:
    episodes = {}
    for planning in (0, 20):
        envs = Environments("Maze-v0", 1, seed=0, options={"text": dig(5, 5, seed=2)})
        train(table(envs, rate=0.5, planning=planning, seed=0), envs, 3_000, start=0.1, end=0.1)
        episodes[planning] = len(envs.finished())
    assert episodes[20] > 2 * episodes[0]


def test_expected_sarsa_learns_too() -> None:
    envs = Environments("Maze-v0", 2, seed=0, options={"text": "S..G"})
    agent = train(table(envs, method="expected_sarsa", gamma=1.0, rate=0.5), envs, 2_000, end=0.0)
    assert agent.values[:3].tolist() == pytest.approx([-3.0, -2.0, -1.0], abs=0.05)
    assert (epsilon_greedy(agent.q, 0.0) > 0)[:3].tolist() == [[False, True, False, False]] * 3


def test_step_sizes_halve_with_visits() -> None:
    envs = Environments("Maze-v0", 1, seed=0, options={"text": "SG"})
    agent = table(envs, gamma=1.0, rate=1.0, rate_visits=1.0, initial=1.0)
    agent.epsilon = 0.0
    agent.q[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    for expected in (-1.0, -1.0, -1.0):  # steps of 1, 1/2, 1/3 towards a constant target
        agent.learn(envs.step(torch.tensor([1]).numpy()), envs.observations)
        assert agent.q[0, 1].item() == expected
    assert agent.visits[0, 1].item() == 3


def test_a_saved_table_acts_the_same_and_a_foreign_one_is_refused() -> None:
    envs = Environments("Maze-v0", 1, seed=0, options={"text": "S..G"})
    agent, other = train(table(envs), envs, 500), table(envs)
    other.load_state_dict(agent.state_dict())
    assert other.q.equal(agent.q)
    with pytest.raises(ValueError, match="need"):
        TabularAgent(2, 4).load_state_dict(agent.state_dict())


def test_a_seed_decides_a_whole_training() -> None:
    tables = []
    for _ in range(2):
        envs = Environments("FrozenLake-v1", 3, seed=7)
        tables.append(train(table(envs, planning=2, seed=7), envs, 600).q)
    assert tables[0].equal(tables[1])


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="method"):
        TabularAgent(2, 2, method="td")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="planning"):
        TabularAgent(2, 2, method="sarsa", planning=1)
