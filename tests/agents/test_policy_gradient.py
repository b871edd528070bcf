"""REINFORCE, A2C and PPO: what they are made of, infinite horizons, and that they learn."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.agents.environments import Environments
from pipeline.agents.policy_gradient import PolicyGradientAgent
from pipeline.agents.rewards import RewardScale
from pipeline.agents.training import build, evaluate
from pipeline.config import load_agent


class Forever(gymnasium.Env[Any, Any]):
    """Reward 1 for ever; only a clock ends it."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(1, np.float32), 1.0, False, False, {}


gymnasium.register("Forever-v0", entry_point=Forever, max_episode_steps=4)


def learn(algorithm: str, environment: str, steps: int, *options: str) -> PolicyGradientAgent:
    config = load_agent(algorithm, environment, [f"steps={steps}", *options])
    envs = Environments(environment, config.copies, seed=config.seed, options=config.options)
    agent = build(config, envs.observation_space, envs.action_space)
    assert isinstance(agent, PolicyGradientAgent)
    while envs.steps < steps:
        agent.anneal(envs.steps / steps)
        agent.learn(envs.step(agent.act(envs.observations)), envs.observations)
    return agent


def value_of(agent: PolicyGradientAgent) -> float:
    ones = torch.ones(1, 1, 1)
    values = agent.network.evaluate({"states": ones}, torch.zeros(1, 1, dtype=torch.int64)).values
    assert values is not None
    return values.item()


VALUE = ["gamma=0.8", "learning_rate=0.01", "copies=4", "horizon=8", "hidden=[]"]


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_a_clock_does_not_end_the_world(algorithm: str) -> None:
    """V = 1/(1 − γ) = 5, though every episode is cut after four steps."""
    options = ["optimizer=adam", "gae_lambda=0.9"] if algorithm == "a2c" else ["minibatch_size=32", "epochs=2"]
    agent = learn(algorithm, "Forever-v0", 12_000, *VALUE, *options)
    assert value_of(agent) == pytest.approx(5.0, abs=0.1)


def test_taking_the_clock_for_an_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Environments.step

    def confused(self: Environments, actions: Any) -> Any:
        step = plain(self, actions)
        return replace(step, terminated=step.terminated | step.truncated, truncated=np.zeros_like(step.truncated))

    monkeypatch.setattr(Environments, "step", confused)
    agent = learn("a2c", "Forever-v0", 12_000, *VALUE, "optimizer=adam")
    assert value_of(agent) < 3.5


def test_the_first_ratio_is_one_and_the_figures_are_there() -> None:
    config = load_agent("ppo", "CartPole-v1", ["copies=2", "horizon=16", "minibatch_size=8", "epochs=1"])
    envs = Environments("CartPole-v1", 2, seed=0)
    agent = build(config, envs.observation_space, envs.action_space)
    figures = None
    while figures is None:
        agent.anneal(1.0)
        figures = agent.learn(envs.step(agent.act(envs.observations)), envs.observations)
    assert figures["policy/first_ratio_error"] < 1e-5
    assert {"policy/entropy", "value/explained_variance", "policy/clip_fraction"} <= set(figures)


MAZE = ["options={text: S....G, max_episode_steps: 50}", "hidden=[32]", "learning_rate=0.02", "entropy_coef=0.01"]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("reinforce", ["baseline=none"]),
        ("reinforce", ["baseline=value"]),
        ("a2c", ["optimizer=adam", "gae_lambda=0.95"]),
        ("ppo", ["horizon=16", "epochs=4"]),
    ],
)
def test_they_find_the_way_through_a_corridor(algorithm: str, options: list[str]) -> None:
    agent = learn(algorithm, "Maze-v0", 8_000, *MAZE, *options)
    assert agent.act(np.arange(5), greedy=True).tolist() == [1] * 5


@pytest.mark.parametrize("squash", ["false", "true"])
def test_a_continuous_bandit_finds_its_target(squash: str) -> None:
    class Target(Forever):
        action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return np.ones(1, np.float32), -abs(float(action[0]) - 0.5), True, False, {}

    gymnasium.register("Target-v0", entry_point=Target)
    options = ["gamma=0.0", "hidden=[8]", "learning_rate=0.02", "horizon=16", "epochs=4", "normalize_rewards=true"]
    agent = learn("ppo", "Target-v0", 6_000, *options, f"squash={squash}")
    assert agent.act(np.ones((1, 1), np.float32), greedy=True)[0, 0] == pytest.approx(0.5, abs=0.15)
    del gymnasium.registry["Target-v0"]


def test_a_seed_decides_everything_and_what_is_saved_acts_the_same() -> None:
    options = ["copies=2", "horizon=32", "normalize_observations=true"]
    first, same, other = (learn("ppo", "CartPole-v1", 512, *options, f"seed={seed}").state_dict() for seed in (1, 1, 2))
    assert all(first[name].equal(same[name]) for name in first)
    assert any(not first[name].equal(other[name]) for name in first)
    config = load_agent("ppo", "CartPole-v1", options)
    envs = Environments("CartPole-v1", 1, seed=0)
    fresh = build(config, envs.observation_space, envs.action_space)
    fresh.load_state_dict(first)
    states = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    again = build(config, envs.observation_space, envs.action_space)
    again.load_state_dict(fresh.state_dict())
    assert (fresh.act(states, greedy=True) == again.act(states, greedy=True)).all()
    assert "moments.mean" in first


def test_rewards_are_scaled_by_the_spread_of_returns_and_keep_their_sign() -> None:
    envs = Environments("Pendulum-v1", 2, seed=0)
    scale = RewardScale(2, 0.9)
    rng = np.random.default_rng(0)
    raw, scaled = [], []
    for _ in range(400):
        step = envs.step(rng.uniform(-2, 2, (2, 1)).astype(np.float32))
        raw.append(step.rewards)
        scaled.append(scale(step).rewards)
    assert (np.sign(np.array(scaled)) == np.sign(np.array(raw))).all()
    late = np.array(scaled)[200:]
    assert 0.02 < np.abs(late).mean() < np.abs(np.array(raw)[200:]).mean() / 2


def test_ppo_keeps_the_pole_up_much_longer_than_chance() -> None:
    """A random agent holds it for about 22 steps."""
    agent = learn("ppo", "CartPole-v1", 12_000)
    config = load_agent("ppo", "CartPole-v1", ["evaluation_episodes=10"])
    assert np.mean(evaluate(agent, config)) > 150
