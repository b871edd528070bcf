"""What an environment does, as `rl.planning` wants it: read off the environment, or learned from steps."""

from typing import Any

import torch
from torch import Tensor

from pipeline.agents.environments import Experience

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

    def remember(self, experience: Experience) -> None:
        """Count some steps. A truncated step counts like any other: the clock is not the world's."""
        cells = experience.states, experience.actions
        going_on = (~experience.terminated).double()
        self.visits.index_put_(cells, torch.ones_like(going_on), accumulate=True)
        self._reward_sums.index_put_(cells, experience.rewards.double(), accumulate=True)
        self._successors.index_put_((*cells, experience.successors), going_on, accumulate=True)

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

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs."""
        return {"visits": self.visits, "rewards": self._reward_sums, "successors": self._successors}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved counts."""
        self.visits, self._reward_sums, self._successors = (
            tensors[name].clone() for name in ("visits", "rewards", "successors")
        )

    def draw(self, count: int, generator: torch.Generator) -> Experience:
        """`count` imagined steps from cells that were tried, each as likely; nothing while none was.

        The reward is the mean seen there, successor and ending are drawn by how often they followed.
        """
        cells = self.seen.nonzero()
        if not len(cells):
            empty = torch.zeros(0, dtype=torch.int64)
            return Experience(
                empty, empty, torch.zeros(0, dtype=torch.float64), empty, torch.zeros(0, dtype=torch.bool)
            )
        chosen = cells[torch.randint(len(cells), (count,), generator=generator)]
        states, actions = chosen.unbind(1)
        visits, followed = self.visits[states, actions], self._successors[states, actions]
        ended = torch.rand(count, generator=generator, dtype=torch.float64) * visits >= followed.sum(1)
        # An ended step has no successor; any will do, its discount is 0.
        weights = torch.where(ended[:, None], torch.ones_like(followed), followed)
        successors = torch.multinomial(weights, 1, generator=generator).squeeze(1)
        return Experience(states, actions, self._reward_sums[states, actions] / visits, successors, ended)
