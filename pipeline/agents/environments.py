"""Several copies of one gymnasium environment, stepped together, that never mistake a reset for a successor."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pipeline.agents.maze  # noqa: F401  (registers Maze-v0)
from pipeline.agents import atari, landmarks
from pipeline.agents.errors import AgentError

Array = NDArray[Any]
LONGEST = 1_000  # steps of a greedy episode where the environment sets no limit
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of E environments: what was seen, done and given, and the TRUE successor, also at an episode's end."""

    observations: Array  # [E,…]
    actions: Array  # [E,…]
    rewards: Array  # [E] float64
    successors: Array  # [E,…]; the last observation of the episode where one ended, not the first of the next
    terminated: Array  # [E] bool; no future
    truncated: Array  # [E] bool; a clock cut it off


class Experience(NamedTuple):
    """N steps as tensors, or N chains of up to n steps: what tables and replay learn from."""

    states: Tensor  # [N,…]
    actions: Tensor  # [N]
    rewards: Tensor  # [N], or [N,n]: 0 behind a chain's end
    successors: Tensor  # [N,…]; the true ones
    terminated: Tensor  # [N] bool
    lengths: Tensor | None = None  # [N] of the chains; None: all are single steps

    def rows(self, rows: slice) -> "Experience":
        """Some of them."""
        return Experience(*(part[rows] for part in self if part is not None))

    @classmethod
    def of(cls, step: Step) -> "Experience":
        """One step of every copy; a truncated one bootstraps from its successor like any other."""
        parts = (step.observations, step.actions, step.rewards, step.successors, step.terminated)
        return cls(*(torch.as_tensor(part) for part in parts))


@dataclass(frozen=True)
class Episode:
    """A finished episode."""

    total: float  # undiscounted return
    length: int
    steps: int  # environment steps of all copies when it ended
    terminated: bool  # by what happened in it, not by a clock


class Environments:
    """E copies of an environment. `observations` is what the next actions answer.

    Args:
        name: gymnasium id.
        count: E ≥ 1.
        seed: copy i is seeded with seed + i.
        options: keyword arguments of the environment.
        training: a game's lives are episodes of their own, for the learner; an `Episode` is always a whole game.

    Raises:
        AgentError: if gymnasium doesn't know the environment, or it refuses its options.
    """

    def __init__(
        self, name: str, count: int, *, seed: int, options: Mapping[str, Any] | None = None, training: bool = False
    ) -> None:
        if count < 1:
            raise ValueError(f"environments: got {count}; use at least 1")
        self.count = count
        self._envs = [make(name, options or {}, training=training) for _ in range(count)]
        self.observation_space = self._envs[0].observation_space
        self.action_space = self._envs[0].action_space
        stacked = self._envs[0].has_wrapper_attr("stack_size")
        self.stack: int = self._envs[0].get_wrapper_attr("stack_size") if stacked else 1  # frames of an observation
        # Python's own numbers: environments check them several times faster than numpy's.
        self._plain = isinstance(self.action_space, gymnasium.spaces.Discrete)
        self.observations: Array = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self._envs)])
        self.steps = 0
        self._totals = np.zeros(count)
        self._lengths = np.zeros(count, dtype=np.int64)
        self._finished: list[Episode] = []

    def step(self, actions: Array) -> Step:
        """Act once in every copy; copies whose episode ended begin the next one."""
        before = self.observations
        moves = actions.tolist() if self._plain else actions
        outcomes = [env.step(move) for env, move in zip(self._envs, moves, strict=True)]
        parts = tuple(zip(*outcomes, strict=True))[:4]
        seen, rewards, terminated, truncated = map(np.array, parts)
        self.observations = seen
        self.steps += self.count
        self._totals += rewards
        self._lengths += 1
        ended = terminated | truncated
        if ended.any():
            self.observations = seen.copy()
            for row in ended.nonzero()[0]:
                self.observations[row] = self._envs[row].reset()[0]
                if outcomes[row][4].get(atari.LIFE_LOST):
                    continue
                total, length, terminal = self._totals[row], self._lengths[row], terminated[row]
                self._finished.append(Episode(float(total), int(length), self.steps, bool(terminal)))
                self._totals[row] = self._lengths[row] = 0
        # A copy that ends at the very step of its time limit has ended: the clock didn't matter.
        return Step(before, actions, rewards.astype(np.float64), seen, terminated, truncated & ~terminated)

    def finished(self) -> list[Episode]:
        """Episodes that ended since this was last asked."""
        episodes, self._finished = self._finished, []
        return episodes

    def close(self) -> None:
        """Let go of windows and files."""
        for env in self._envs:
            env.close()


def with_limit(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, plus a time limit where the environment has none: a greedy agent may run in circles for ever."""
    env = make(name, options)
    spec = env.spec
    unlimited = spec is None or (spec.max_episode_steps is None and "max_num_frames_per_episode" not in spec.kwargs)
    env.close()
    return {**({"max_episode_steps": LONGEST} if unlimited else {}), **options}


def make(name: str, options: Mapping[str, Any], *, training: bool = False) -> gymnasium.Env[Any, Any]:
    """One environment with its options; a version that gymnasium has dropped becomes the newest one, with a warning.

    Games of Atari get the preprocessing of `agents/atari.py`, whose options stand among the game's.

    Raises:
        AgentError: if it can't be made.
    """
    landmarks.register(name)
    checks = {"disable_env_checker": True}  # advice for authors of environments, at a price for every step
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once, below, in our words
            if name.startswith(landmarks.ATARI):
                return atari.make(name, options, training=training)
            try:
                return gymnasium.make(name, **checks, **options)
            except gymnasium.error.DeprecatedEnv:
                log.warning("%s is gone from gymnasium; this is its newest version", name)
                return gymnasium.make(name.rpartition("-v")[0], **checks, **options)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as problem:
        missing = isinstance(problem, gymnasium.error.DependencyNotInstalled)
        extra = "landmarks" if landmarks.family(name) else "agents"
        hint = f"; pip install 'align-pipeline[{extra}]'" if missing else ""
        raise AgentError(f"environment {name!r}: {str(problem).splitlines()[0]}{hint}") from problem
