"""Agents with a table: Q-learning, SARSA, Expected SARSA, each with Dyna's planning on a learned model if asked."""

from typing import Literal

import torch
from torch import Tensor

from pipeline.agents.environments import Array, Experience, Step
from pipeline.agents.model import LearnedModel
from pipeline.rl.returns import td_target
from pipeline.rl.tabular import Successor, epsilon_greedy, successor_values, td_step

Method = Literal["q_learning", "sarsa", "expected_sarsa"]
SUCCESSOR: dict[str, Successor] = {"q_learning": "max", "sarsa": "taken", "expected_sarsa": "expected"}


class TabularAgent:
    """Q [S,A] and an ε-greedy way of acting on it.

    Args:
        states: S.
        actions: A.
        method: which successor value the target bootstraps from.
        gamma: discount in [0, 1].
        rate: α in (0, 1], the first step size of every cell.
        rate_visits: visits k after which a cell's step size has halved, α_n = α k / (k + n); such steps converge in
            noisy worlds. None keeps α.
        initial: Q before learning; a high value explores (optimism).
        planning: imagined steps per real one (Dyna-Q); 0 learns from real ones only.
        seed: of exploring and imagining.
    """

    def __init__(
        self,
        states: int,
        actions: int,
        *,
        method: Method = "q_learning",
        gamma: float = 0.99,
        rate: float = 0.1,
        rate_visits: float | None = None,
        initial: float = 0.0,
        planning: int = 0,
        seed: int = 0,
    ) -> None:
        if method not in SUCCESSOR:
            raise ValueError(f"method: got {method!r}; use one of {', '.join(SUCCESSOR)}")
        if planning and method == "sarsa":
            raise ValueError("planning: imagined steps have no next action; use q_learning or expected_sarsa")
        self.q = torch.full((states, actions), initial, dtype=torch.float64)
        self.visits = torch.zeros(states, actions, dtype=torch.float64)
        self.model = LearnedModel(states, actions) if planning else None
        self.epsilon = 1.0
        self._successor, self._gamma, self._planning = SUCCESSOR[method], gamma, planning
        self._rate, self._rate_visits = rate, rate_visits
        self._random = torch.Generator().manual_seed(seed)
        self._next_actions: Tensor | None = None  # SARSA has chosen them already, and must take them

    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """[E] actions: ε-greedy, or the best ones (ties at random either way)."""
        if self._next_actions is not None and not greedy:
            chosen, self._next_actions = self._next_actions, None
            return chosen.numpy()
        return self._choose(torch.as_tensor(observations), 0.0 if greedy else self.epsilon).numpy()

    def learn(self, step: Step, observations: Array) -> float:
        """Learn from one step of every copy; `observations` are those the next actions will answer.

        Returns:
            The mean absolute TD error of the real step.
        """
        experience = Experience.of(step)
        next_actions = None
        if self._successor == "taken":
            self._next_actions = self._choose(torch.as_tensor(observations), self.epsilon)
            ended = torch.as_tensor(step.terminated | step.truncated)
            elsewhere = self._choose(experience.successors, self.epsilon)
            next_actions = torch.where(ended, elsewhere, self._next_actions)
        cells = (experience.states, experience.actions)
        rates = self._rates(cells)
        self.visits.index_put_(cells, torch.ones_like(rates), accumulate=True)
        error = self._towards_target(experience, rates, next_actions)
        if self.model is not None:
            self.model.remember(experience)
            imagined = self.model.draw(self._planning * len(rates), self._random)
            self._towards_target(imagined, self._rates((imagined.states, imagined.actions)), None)
        return float(error.abs().mean())

    @property
    def values(self) -> Tensor:
        """[S], max_a Q."""
        return self.q.amax(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs to act the same."""
        return {"q": self.q, "visits": self.visits}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved table. Raises ValueError if it has another shape."""
        if tensors["q"].shape != self.q.shape:
            raise ValueError(f"table: got {tuple(tensors['q'].shape)}, this environment needs {tuple(self.q.shape)}")
        self.q, self.visits = tensors["q"].clone(), tensors["visits"].clone()

    def _towards_target(self, experience: Experience, rates: Tensor, next_actions: Tensor | None) -> Tensor:
        rows = self.q[experience.successors]
        probabilities = epsilon_greedy(rows, self.epsilon) if self._successor == "expected" else None
        after = successor_values(rows, self._successor, actions=next_actions, probabilities=probabilities)
        discounts = self._gamma * (~experience.terminated).to(self.q.dtype)
        targets = td_target(experience.rewards, after, discounts)
        return td_step(self.q, experience.states, experience.actions, targets, rates)

    def _rates(self, cells: tuple[Tensor, Tensor]) -> Tensor:
        visits = self.visits[cells]
        if self._rate_visits is None:
            return torch.full_like(visits, self._rate)
        return self._rate * self._rate_visits / (self._rate_visits + visits)

    def _choose(self, observations: Tensor, epsilon: float) -> Tensor:
        probabilities = epsilon_greedy(self.q[observations], epsilon)
        return torch.multinomial(probabilities, 1, generator=self._random).squeeze(1)
