"""What an environment does, as `rl.planning` wants it: read off the environment, or learned from steps."""

from typing import Any

import torch
from torch import Tensor

from pipeline.agents.environments import Step

Model = tuple[Tensor, Tensor]  # rewards [S,A], transitions [S,A,S]; float64


def model_of(environment: Any) -> Model:
    """The exact model of a toy-text environment or a maze, from its table `P[s][a]`.

    Raises:
        ValueError: if the environment keeps no such table.
    """
    table = getattr(environment.unwrapped, "P", None)
    if not isinstance(table, dict):
        raise ValueError(f"{environment.unwrapped}: keeps no transition table P, so it can't be solved exactly")
    states, actions = len(table), len(table[0])
    rewards = torch.zeros(states, actions, dtype=torch.float64)
    transitions = torch.zeros(states, actions, states, dtype=torch.float64)
    for state, outcomes in table.items():
        for action, branches in outcomes.items():
            for probability, successor, reward, terminated in branches:
                rewards[state, action] += probability * reward
                if not terminated:
                    transitions[state, action, successor] += probability
    return rewards, transitions


class LearnedModel:
    """Counts of what followed what (Sutton 1990, "Dyna"): the maximum-likelihood model of a table of states.

    Args:
        states: S.
        actions: A.
    """

    def __init__(self, states: int, actions: int) -> None:
        self.visits = torch.zeros(states, actions, dtype=torch.float64)
        self._reward_sums = torch.zeros_like(self.visits)
        self._successors = torch.zeros(states, actions, states, dtype=torch.float64)

    def remember(self, step: Step) -> None:
        """Count one step of every copy. A truncated step counts like any other: the clock is not the world's."""
        cells = torch.as_tensor(step.observations), torch.as_tensor(step.actions)
        ones = torch.ones(len(step.rewards), dtype=torch.float64)
        self.visits.index_put_(cells, ones, accumulate=True)
        self._reward_sums.index_put_(cells, torch.as_tensor(step.rewards, dtype=torch.float64), accumulate=True)
        going_on = torch.as_tensor(~step.terminated, dtype=torch.float64)
        self._successors.index_put_((*cells, torch.as_tensor(step.successors)), going_on, accumulate=True)

    @property
    def seen(self) -> Tensor:
        """[S,A] bool: tried at least once."""
        return self.visits > 0

    def estimate(self, *, unseen: float = 0.0) -> Model:
        """Mean reward and share of each successor; what was never tried pays `unseen` and ends the episode.

        `unseen` is how the planner looks at the unknown: a high value sends it there, a low one keeps it away.
        """
        counts = self.visits.clamp(min=1)
        rewards = torch.where(self.seen, self._reward_sums / counts, torch.full_like(counts, unseen))
        return rewards, self._successors / counts[..., None]
