"""What an on-policy agent keeps between updates: a fixed number of steps of every copy, or whole episodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.agents.environments import Array, Step


@dataclass(frozen=True)
class Trajectories:
    """B rows of T steps, right-padded, before the policy has had a second look at them."""

    states: Tensor  # [B,T,…]
    actions: Tensor  # [B,T(,D)], as sampled
    rewards: Tensor  # [B,T] float32
    successors: Tensor  # [B,T,…]; the true ones
    mask: Tensor  # [B,T] bool
    terminated: Tensor  # [B,T] bool
    truncated: Tensor  # [B,T] bool


class Memory(Protocol):
    """Gathers steps until there are enough for an update."""

    def add(self, step: Step, actions: Tensor) -> Trajectories | None:
        """Keep one step of every copy with the actions [E(,D)] as sampled; what is due, or None."""
        ...


class HorizonMemory:
    """Every `horizon` steps, one row for each copy; rows run over the ends of episodes.

    Args:
        horizon: T.
    """

    def __init__(self, horizon: int) -> None:
        self._horizon = horizon
        self._steps: list[Step] = []
        self._actions: list[Tensor] = []

    def add(self, step: Step, actions: Tensor) -> Trajectories | None:
        """See `Memory`."""
        self._steps.append(step)
        self._actions.append(actions)
        if len(self._steps) < self._horizon:
            return None
        steps, chosen = self._steps, self._actions
        self._steps, self._actions = [], []
        return _trajectories(steps, chosen, lambda parts: np.stack(parts, axis=1))


class EpisodeMemory:
    """As soon as `episodes` are finished, one row for each of them.

    Every episode is used once, so short ones don't count more than long ones. One that runs on over an update is
    finished under the new policy; its beginning is then an update old.

    Args:
        episodes: finished episodes per update.
        copies: E.
    """

    def __init__(self, episodes: int, copies: int) -> None:
        self._episodes = episodes
        self._running: list[list[tuple[Step, Tensor]]] = [[] for _ in range(copies)]
        self._finished: list[Trajectories] = []

    def add(self, step: Step, actions: Tensor) -> Trajectories | None:
        """See `Memory`."""
        ended = step.terminated | step.truncated
        for copy, running in enumerate(self._running):
            running.append((step, actions))
            if ended[copy]:
                self._finished.append(_row(running, copy))
                self._running[copy] = []
        if len(self._finished) < self._episodes:
            return None
        rows, self._finished = self._finished, []
        pad = torch.nn.utils.rnn.pad_sequence
        return Trajectories(
            **{
                name: pad([getattr(row, name) for row in rows], batch_first=True)
                for name in Trajectories.__dataclass_fields__
            }
        )


def _row(steps: list[tuple[Step, Tensor]], copy: int) -> Trajectories:
    """One copy's steps, without a batch dimension."""
    taken, actions = zip(*steps, strict=True)
    return _trajectories(taken, actions, lambda parts: np.stack([part[copy] for part in parts]))


def _trajectories(
    steps: Sequence[Step], actions: Sequence[Tensor], stack: Callable[[list[Array]], Array]
) -> Trajectories:
    """T steps, each part of them put together by `stack`."""

    def gather(name: str) -> Tensor:
        return torch.as_tensor(stack([getattr(step, name) for step in steps]))

    terminated = gather("terminated")
    return Trajectories(
        states=gather("observations"),
        actions=torch.as_tensor(stack([chosen.numpy() for chosen in actions])),
        rewards=gather("rewards").float(),
        successors=gather("successors"),
        mask=torch.ones_like(terminated),
        terminated=terminated,
        truncated=gather("truncated"),
    )
