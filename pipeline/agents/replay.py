"""Replay memory (Lin 1992; Mnih et al. 2015): steps kept in a ring, drawn evenly, so that a network sees them mixed."""

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
        shape = tuple(observation_space.shape or ())
        dtype = torch.as_tensor(observation_space.sample()).dtype
        dtype = torch.float32 if dtype == torch.float64 else dtype
        self._kept = Experience(
            states=torch.zeros(capacity, *shape, dtype=dtype),
            actions=torch.zeros(capacity, dtype=torch.int64),
            rewards=torch.zeros(capacity),
            successors=torch.zeros(capacity, *shape, dtype=dtype),
            terminated=torch.zeros(capacity, dtype=torch.bool),
        )
        self._capacity, self._generator = capacity, generator
        self._next = self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, step: Step) -> None:
        """Keep one step of every copy; the oldest leave. A truncated step is kept as one that goes on."""
        count = len(step.rewards)
        if count > self._capacity:
            raise ValueError(f"capacity: got {self._capacity} for steps of {count} copies; keep at least one of each")
        places = torch.arange(self._next, self._next + count) % self._capacity
        for kept, fresh in zip(self._kept, Experience.of(step), strict=True):
            kept[places] = fresh.to(kept.dtype)
        self._next = (self._next + count) % self._capacity
        self._filled = min(self._capacity, self._filled + count)

    def sample(self, count: int) -> Experience:
        """`count` steps drawn with replacement, each as likely.

        Raises:
            ValueError: while the memory is empty.
        """
        if not self._filled:
            raise ValueError("sample: the memory is empty; add steps first")
        rows = torch.randint(self._filled, (count,), generator=self._generator)
        return Experience(*(kept[rows] for kept in self._kept))
