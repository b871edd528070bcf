"""Atari games as learning agents see them: the published preprocessing, put together from gymnasium's wrappers.

Sixty pictures a second are more than an agent needs, and one of them says nothing of speed. In this order (Mnih et al.
2015, Methods; Machado et al. 2018): a random number of no-ops at the start; every action is held for four frames, whose
rewards are added; the brightest of the last two frames, pixel by pixel, because some things are drawn in every second
frame only; gray, 84 × 84; in training the loss of a life ends the episode; the last four of these make an observation.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TimeLimit
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
LIFE_LOST = "life_lost"  # in the infos of a step that ends an episode, but not the game
# Options of an environment that are meant for this module and not for the game.
PREPROCESSING: dict[str, Any] = {"noop_max": 30, "frame_skip": 4, "screen_size": 84, "stack": 4, "episodic_life": True}


def make(name: str, options: Mapping[str, Any], *, training: bool) -> gymnasium.Env[Any, Any]:
    """A game whose observations are [stack, 84, 84] bytes.

    Args:
        name: such as ALE/Pong-v5.
        options: of PREPROCESSING, `max_episode_steps` in steps of the agent, and of the game.
        training: whether a lost life ends the episode; an evaluation plays whole games.
    """
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    how = {key: options.get(key, default) for key, default in PREPROCESSING.items()}
    own = {key: value for key, value in options.items() if key not in PREPROCESSING and key != "max_episode_steps"}
    env: gymnasium.Env[Any, Any] = gymnasium.make(name, frameskip=1, disable_env_checker=True, **own)
    env = AtariPreprocessing(
        env, noop_max=how["noop_max"], frame_skip=how["frame_skip"], screen_size=how["screen_size"]
    )
    if options.get("max_episode_steps"):
        env = TimeLimit(env, options["max_episode_steps"])
    if training and how["episodic_life"]:
        env = Lives(env)
    return FrameStackObservation(env, how["stack"])


class Lives(gymnasium.Wrapper[Frame, np.int64, Frame, np.int64]):
    """A lost life ends the episode; the next one goes on in the same game, until that is over."""

    def __init__(self, env: gymnasium.Env[Frame, np.int64]) -> None:
        super().__init__(env)
        self._lives = 0
        self._going_on: Frame | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """A new game, or the same one with a life less."""
        if self._going_on is not None and seed is None:
            observation, self._going_on = self._going_on, None
            return observation, {"lives": self._lives}
        self._going_on = None
        observation, info = self.env.reset(seed=seed, options=options)
        self._lives = self.unwrapped.ale.lives()  # type: ignore[attr-defined]
        return observation, info

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """One step; terminated if a life was lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        lost = info["lives"] < self._lives and not (terminated or truncated)
        self._lives = info["lives"]
        self._going_on = observation if lost else None
        return observation, float(reward), terminated or lost, truncated, {**info, LIFE_LOST: lost}
