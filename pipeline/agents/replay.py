"""Replay memory (Lin 1992; Mnih et al. 2015): steps kept in a ring, drawn evenly, so that a network sees them mixed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from pipeline.agents.environments import Array, Experience, Step


def chains(
    places: Array, longest: int, goes_on: Callable[[Array], Array], onward: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Places [n,N] of the n = `longest` steps from some [N], one after the other, and which of them count [n,N] bool.

    A chain that `goes_on` no longer (asked with places, answers [N] bool) stays at its last step.
    """
    path, real = [places], [np.ones(len(places), np.bool_)]
    for _ in range(longest - 1):
        real.append(real[-1] & goes_on(path[-1]))
        path.append(np.where(real[-1], onward(path[-1]), path[-1]))
    return np.stack(path), np.stack(real)


class ReplayBuffer:
    """The last `capacity` steps, each with its TRUE successor: nothing drawn reaches over the end of an episode.

    Args:
        capacity: steps kept.
        observation_space: Box or Discrete; decides shape and dtype.
        generator: of the draws.
        n_step: longest chain that is drawn.

    Raises:
        ValueError: if capacity is below 1.
    """

    def __init__(
        self, capacity: int, observation_space: spaces.Space[object], generator: torch.Generator, *, n_step: int = 1
    ) -> None:
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
        self._ended = np.zeros(capacity, np.bool_)
        self._capacity, self._generator, self._n_step = capacity, generator, n_step
        self._copies = 1
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
        self._ended[places] = step.terminated | step.truncated
        self._copies = count
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
        if self._n_step == 1:
            return Experience(*(torch.from_numpy(kept[rows]) for kept in self._kept.values()))
        path, real = chains(rows, self._n_step, self._goes_on, self._onward)
        parts = {name: kept[path[-1]] for name, kept in self._kept.items()}
        parts |= {name: self._kept[name][rows] for name in ("observations", "actions")}
        parts["rewards"] = (self._kept["rewards"][path] * real).T
        tensors = (torch.from_numpy(part) for part in (*parts.values(), real.sum(axis=0)))
        return Experience(*tensors)

    def _onward(self, places: Array) -> Array:
        """The same copy's next steps."""
        after: Array = (places + self._copies) % self._capacity
        return after

    def _goes_on(self, places: Array) -> Array:
        """Whether the episode goes on and its next step is kept."""
        kept: Array = (places - self._next) % self._capacity < self._capacity - self._copies  # the oldest is 0
        return kept & ~self._ended[places]
