"""What the training loop asks of an agent, whatever it learns with."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pipeline.agents.environments import Array, Step
from pipeline.rl.schedules import linear_schedule


class Agent(Protocol):
    """Acts in E copies of an environment, and learns from what came of it."""

    def anneal(self, share: float) -> None:
        """So much of the training, in [0, 1], is done: explore less, step smaller."""
        ...

    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """Actions for [E,…] observations, as the environment wants them; greedy = the best it knows."""
        ...

    def learn(self, step: Step, observations: Array) -> dict[str, float] | None:
        """Take in one step of every copy; `observations` are those the next actions will answer.

        Returns:
            Figures of the learning that happened, or None while steps are only gathered.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs to act the same."""
        ...

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved agent. Raises ValueError or RuntimeError if it doesn't fit."""
        ...


@dataclass(frozen=True)
class Exploration:
    """ε falls linearly over the first `share` of the training, then stays."""

    start: float = 1.0
    end: float = 0.05
    share: float = 0.5

    def epsilon(self, done: float) -> float:
        """ε when `done` of the training, in [0, 1], is over."""
        return linear_schedule(self.start, self.end, done / self.share if self.share > 0 else 1.0)
