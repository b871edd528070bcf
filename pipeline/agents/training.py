"""The one loop of all agents, the evaluation after it, and the folder that keeps both."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.agents.agent import Agent, Exploration
from pipeline.agents.dqn import DqnAgent
from pipeline.agents.environments import Environments, Episode, make, with_limit
from pipeline.agents.errors import AgentError
from pipeline.agents.landmarks import screen
from pipeline.agents.policy_gradient import PolicyGradientAgent
from pipeline.agents.tabular import TabularAgent
from pipeline.config import AgentConfig, DqnConfig, OnPolicyConfig, TabularConfig
from pipeline.rundir import StageDir, StageResult

WEIGHTS = "agent.safetensors"
CURVE_POINTS = 100  # rows of metrics.jsonl
# Added to the agent's seed: other episodes than those it learned from, and others again for choosing the weights.
EVALUATION_SEED, SELECTION_SEED = 100_003, 200_003
EVALUATION_COPIES = 10

Report = Callable[[int, dict[str, float]], None]  # (environment steps done, figures that matter)


def build(
    config: AgentConfig, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, stack: int = 1
) -> Agent:
    """A fresh agent for an environment's spaces; `stack` as `Environments` tells it.

    Raises:
        AgentError: if the algorithm can't handle them.
    """
    if isinstance(config, DqnConfig):
        return DqnAgent(observation_space, action_space, config, stack=stack)
    if isinstance(config, OnPolicyConfig):
        return PolicyGradientAgent(observation_space, action_space, config)
    assert isinstance(config, TabularConfig)
    sizes = []
    for name, space in (("observation", observation_space), ("action", action_space)):
        if not isinstance(space, spaces.Discrete):
            raise AgentError(f"{config.algorithm}: {name} space {space} has no table; use dqn or ppo")
        sizes.append(int(space.n))
    method: Any = config.algorithm
    return TabularAgent(
        *sizes,
        method=method,
        gamma=config.gamma,
        rate=config.rate,
        rate_visits=config.rate_visits,
        initial=config.initial,
        planning=config.planning,
        exploration=Exploration(config.epsilon_start, config.epsilon_end, config.epsilon_share),
        seed=config.seed,
    )


@contextmanager
def _for_small_networks() -> Iterator[None]:
    """One thread, as small networks only lose by sharing, and denormal numbers are 0: Adam's moments of a unit that has
    died shrink to such, with which every processor takes a hundred times as long. Both hold for the whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


@_for_small_networks()
def train(config: AgentConfig, out: StageDir, report: Report) -> StageResult:
    """Learn for `config.steps` environment steps, evaluate, save.

    metrics.jsonl gets about 100 rows: step, episodes, return and length (means over the episodes that ended since the
    row before), and what the algorithm says of its learning.
    """
    envs = Environments(config.environment, config.copies, seed=config.seed, options=config.options, training=True)
    agent = build(config, envs.observation_space, envs.action_space, stack=envs.stack)
    rows_every = max(1, config.steps // CURVE_POINTS)
    figures: dict[str, float] = {}
    episodes: list[Episode] = []
    due = rows_every
    best = Best(agent, config)
    started = time.perf_counter()
    while envs.steps < config.steps:
        agent.anneal(envs.steps / config.steps)
        step = envs.step(agent.act(envs.observations))
        figures |= agent.learn(step, envs.observations) or {}
        if envs.steps >= due or envs.steps >= config.steps:
            due = envs.steps + rows_every
            fresh = envs.finished()
            episodes += fresh
            row = {"episodes": len(episodes)} | _means(fresh) | figures
            out.log(envs.steps, row)
            report(envs.steps, {name: row[name] for name in ("return", "length") if name in row})
        best.look(envs.steps)
    seconds = time.perf_counter() - started - best.seconds
    envs.close()
    best.take()
    save_file({name: value.contiguous() for name, value in agent.state_dict().items()}, out.path / WEIGHTS)
    played = play_episodes(agent, config, config.evaluation_episodes, EVALUATION_SEED)
    totals = [episode.total for episode in played]
    return out.finish(
        {
            "mean_return": fmean(totals),
            "std_return": stdev(totals) if len(totals) > 1 else 0.0,
            "min_return": min(totals),
            "max_return": max(totals),
            "evaluation_episodes": len(totals),
            "terminated": fmean(episode.terminated for episode in played),
            "episodes": len(episodes),
            "steps": envs.steps,
            "training_seconds": round(seconds, 3),
            "steps_per_second": round(envs.steps / seconds, 1),
        }
        | best.figures(),
        artifacts={"agent": WEIGHTS},
    )


class Best:
    """The weights that played best so far, in greedy episodes that neither training nor the evaluation plays.

    What is learned doesn't depend on it: looking takes no random number and no step of the training's.
    """

    def __init__(self, agent: Agent, config: AgentConfig) -> None:
        self._agent, self._config, self._due = agent, config, config.keep_best or config.steps + 1
        self._kept: dict[str, Tensor] = {}
        self._step, self._mean = 0, -math.inf
        self.seconds = 0.0  # spent on looking

    def look(self, steps: int) -> None:
        """Play, if `steps` of training make it due, and keep the weights if none were better; the later of equals."""
        if steps < self._due:
            return
        self._due = steps + self._config.keep_best
        started = time.perf_counter()
        mean = fmean(evaluate(self._agent, self._config, self._config.selection_episodes, SELECTION_SEED))
        if mean >= self._mean:
            self._step, self._mean = steps, mean
            self._kept = {name: value.clone() for name, value in self._agent.state_dict().items()}
        self.seconds += time.perf_counter() - started

    def take(self) -> None:
        """Put the best weights into the agent; the last ones stay where nobody looked."""
        if self._kept:
            self._agent.load_state_dict(self._kept)

    def figures(self) -> dict[str, float]:
        """When they were kept, and what they won then; none where nobody looked."""
        return {"best_step": self._step, "best_return": self._mean} if self._kept else {}


def evaluate(
    agent: Agent, config: AgentConfig, episodes: int | None = None, seed: int = EVALUATION_SEED
) -> list[float]:
    """Undiscounted returns of greedy episodes, `config.evaluation_episodes` of them unless a number is given."""
    wanted = config.evaluation_episodes if episodes is None else episodes
    return [episode.total for episode in play_episodes(agent, config, wanted, seed)]


def play_episodes(agent: Agent, config: AgentConfig, wanted: int, seed: int) -> list[Episode]:
    """Greedy episodes: whole games, rewards as the environment gives them.

    As many from each copy as from the next: taking those that end first would favour short episodes.
    """
    copies = next(count for count in range(min(EVALUATION_COPIES, wanted), 0, -1) if wanted % count == 0)
    options = with_limit(config.environment, config.options)
    envs = Environments(config.environment, copies, seed=config.seed + seed, options=options)
    quota = wanted // copies
    counts = np.zeros(copies, dtype=np.int64)
    played: list[Episode] = []
    while len(played) < wanted:
        step = envs.step(agent.act(envs.observations, greedy=True))
        ended = (step.terminated | step.truncated).nonzero()[0]
        for copy, episode in zip(ended, envs.finished(), strict=True):
            if counts[copy] < quota:
                counts[copy] += 1
                played.append(episode)
    envs.close()
    return played


def load(config: AgentConfig, folder: Path, render_mode: str = "rgb_array") -> tuple[Agent, gymnasium.Env[Any, Any]]:
    """A saved agent and one environment to act in, that can be looked at and whose episodes end.

    Raises:
        AgentError: if the environment can't be made, or the saved agent is none of this config.
    """
    if render_mode == "rgb_array":
        os.environ.setdefault("SDL_VIDEODRIVER", screen(config.environment))
    options = with_limit(config.environment, config.options)
    env = make(config.environment, {**options, "render_mode": render_mode})
    agent = build(config, env.observation_space, env.action_space)
    try:
        agent.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as problem:
        raise AgentError(f"{folder / WEIGHTS} can't be loaded: {str(problem).splitlines()[0]}") from None
    return agent, env


def _means(episodes: list[Episode]) -> dict[str, float]:
    if not episodes:
        return {}
    return {
        "return": fmean(episode.total for episode in episodes),
        "length": fmean(episode.length for episode in episodes),
    }
