"""DQN: its targets, its ablations, and that it learns."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.agents.dqn import DqnAgent
from pipeline.agents.environments import Environments, Experience, Step
from pipeline.agents.networks import QNetwork
from pipeline.config import DqnConfig, load_agent

BOX = spaces.Box(-1.0, 1.0, (1,))


def agent_with(**options: object) -> DqnAgent:
    agent = DqnAgent(BOX, spaces.Discrete(2), DqnConfig(environment="x", gamma=0.5, hidden=[4], **options))
    set_q(agent.target, [20.0, 10.0])
    if agent.target is not agent.online:
        set_q(agent.online, [1.0, 3.0])
    return agent


def set_q(network: QNetwork, values: list[float]) -> None:
    """Make every state's action values these."""
    weight, bias = network.heads.layers[0][-1]
    weight.zero_()
    bias.copy_(torch.tensor(values))


def batch(terminated: bool) -> Experience:
    one = torch.ones(1, 1)
    return Experience(one, torch.tensor([0]), torch.tensor([2.0]), one, torch.tensor([terminated]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 2 + 0.5 * 20), ({"double": True}, 2 + 0.5 * 10), ({"target_network": False}, 2 + 0.5 * 20)],
)
def test_targets_by_hand(options: dict[str, bool], expected: float) -> None:
    """max of the target network; its value of the online network's best action; its own maximum."""
    agent = agent_with(**options)
    assert agent.targets(batch(False)).tolist() == [expected]
    assert agent.targets(batch(True)).tolist() == [2.0]


def test_targets_of_chains_by_hand() -> None:
    """γ = ½, rewards 2, 4, 8: two steps and what follows, or three and nothing."""
    one, lengths = torch.ones(2, 1), torch.tensor([2, 3])
    rewards = torch.tensor([[2.0, 4.0, 0.0], [2.0, 4.0, 8.0]])
    chains = Experience(one, torch.zeros(2), rewards, one, torch.tensor([False, True]), lengths)
    assert agent_with(n_step=3).targets(chains).tolist() == [2 + 4 / 2 + 20 / 4, 2 + 4 / 2 + 8 / 4]
    assert agent_with(n_step=3, double=True).targets(chains).tolist() == [2 + 4 / 2 + 10 / 4, 2 + 4 / 2 + 8 / 4]


def test_a_truncated_step_still_bootstraps() -> None:
    agent = agent_with()
    cut = Step(np.ones((1, 1)), np.array([0]), np.array([2.0]), np.ones((1, 1)), np.array([False]), np.array([True]))
    assert agent.targets(Experience.of(cut)).tolist() == [12.0]


def test_without_replay_only_the_latest_steps_are_kept() -> None:
    agent = agent_with(replay=False, train_every=3, learning_starts=1_000)
    for number in range(10):
        state = np.full((1, 1), float(number))
        agent.learn(Step(state, np.array([0]), np.zeros(1), state, np.array([False]), np.array([False])), state)
    assert set(agent.memory.sample(50).states.flatten().tolist()) == {7.0, 8.0, 9.0}


def test_the_target_network_follows_when_due() -> None:
    agent = agent_with(learning_starts=0, train_every=1, target_every=4, batch_size=2)
    state = np.ones((1, 1))
    step = Step(state, np.array([0]), np.ones(1), state, np.array([False]), np.array([False]))
    for count in range(1, 5):
        agent.learn(step, state)
        same = agent.online.heads.vector.equal(agent.target.heads.vector)
        assert same == (count == 4)


def test_continuous_actions_are_refused_in_one_sentence() -> None:
    envs = Environments("Pendulum-v1", 1, seed=0)
    with pytest.raises(ValueError, match="continuous") as caught:
        DqnAgent(envs.observation_space, envs.action_space, DqnConfig(environment="Pendulum-v1"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["double=true", "dueling=true", "loss=mse", "copies=2", "n_step=3"]])
def test_it_finds_the_way_through_a_corridor(options: list[str]) -> None:
    maze = ["options={text: S....G}", "hidden=[32]", "learning_starts=100", "train_every=2", "target_every=50"]
    config = load_agent("dqn", "Maze-v0", [*maze, *options])
    envs = Environments("Maze-v0", config.copies, seed=0, options=config.options)
    agent = DqnAgent(envs.observation_space, envs.action_space, config)
    while envs.steps < 1_500:
        agent.anneal(envs.steps / 1_500)
        agent.learn(envs.step(agent.act(envs.observations)), envs.observations)
    assert agent.act(np.arange(5), greedy=True).tolist() == [1] * 5
