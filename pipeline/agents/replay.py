"""Replay memory (Lin 1992; Mnih et al. 2015): steps kept in a ring, drawn evenly, so that a network sees them mixed."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from pipeline.agents.environments import Experience, Step


class ReplayBuffer:
    """The last `capacity` steps, each with its TRUE successor: nothing drawn reaches over the end of an episode.

    Args:
        capacity: steps kept.
        observation_space: Box or Discrete; decides shape and dtype.
        generator: of the draws.

    Raises:
        ValueError: if capacity is below 1.
    """

    def __init__(self, capacity: int, observation_space: spaces.Space[object], generator: torch.Generator) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: got {capacity}; use at least 1")
        sample = np.asarray(observation_space.sample())
        kind = np.float32 if sample.dtype == np.float64 else sample.dtype
        self._kept = {  # what an Experience takes of a Step, in its order
            "observations": np.zeros((capacity, *sample.shape), kind),
            "actions": np.zeros(capacity, np.int64),
            "rewards": np.zeros(capacity, np.float32),
            "successors": np.zeros((capacity, *sample.shape), kind),
            "terminated": np.zeros(capacity, np.bool_),
        }
        self._capacity, self._generator = capacity, generator
        self._next = self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, step: Step) -> None:
        """Keep one step of every copy; the oldest leave. A truncated step is kept as one that goes on."""
        count = len(step.rewards)
        if count > self._capacity:
            raise ValueError(f"capacity: got {self._capacity} for steps of {count} copies; keep at least one of each")
        places: Any = slice(self._next, self._next + count)
        if self._next + count > self._capacity:  # around the ring's end
            places = np.arange(self._next, self._next + count) % self._capacity
        for name, kept in self._kept.items():
            kept[places] = getattr(step, name)
        self._next = (self._next + count) % self._capacity
        self._filled = min(self._capacity, self._filled + count)

    def sample(self, count: int) -> Experience:
        """`count` steps drawn with replacement, each as likely.

        Raises:
            ValueError: while the memory is empty.
        """
        if not self._filled:
            raise ValueError("sample: the memory is empty; add steps first")
        rows = torch.randint(self._filled, (count,), generator=self._generator).numpy()
        return Experience(*(torch.from_numpy(kept[rows]) for kept in self._kept.values()))
