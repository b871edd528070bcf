"""Agents with a table: Q-learning, SARSA, Expected SARSA, each with Dyna's planning on a learned model if asked."""

from typing import Literal

import torch
from torch import Tensor

from pipeline.agents.agent import Exploration
from pipeline.agents.environments import Array, Experience, Step
from pipeline.agents.model import LearnedModel
from pipeline.rl.action_values import Successor, epsilon_greedy, successor_values, td_step
from pipeline.rl.returns import td_target
from pipeline.rl.tensors import check_shape

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
        exploration: ε as learning goes on.
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
        exploration: Exploration = Exploration(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        if method not in SUCCESSOR:
            raise ValueError(f"method: got {method!r}; use one of {', '.join(SUCCESSOR)}")
        if planning and method == "sarsa":
            raise ValueError("planning: imagined steps have no next action; use q_learning or expected_sarsa")
        self.q = torch.full((states, actions), initial, dtype=torch.float64)
        self.visits = torch.zeros(states, actions, dtype=torch.float64)
        self.model = LearnedModel(states, actions) if planning else None
        self.exploration = exploration
        self.epsilon = exploration.start
        self._successor, self._gamma, self._planning = SUCCESSOR[method], gamma, planning
        self._rate, self._rate_visits = rate, rate_visits
        self._random = torch.Generator().manual_seed(seed)
        self._next_actions: Tensor | None = None  # SARSA has chosen them already, and must take them

    def anneal(self, share: float) -> None:
        """Explore as becomes `share` of the training."""
        self.epsilon = self.exploration.epsilon(share)

    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """[E] actions: ε-greedy, or the best ones (ties at random either way)."""
        if self._next_actions is not None and not greedy:
            chosen, self._next_actions = self._next_actions, None
            return chosen.numpy()
        return self._choose(torch.as_tensor(observations), 0.0 if greedy else self.epsilon).numpy()

    def learn(self, step: Step, observations: Array) -> dict[str, float]:
        """Learn from one step of every copy; `observations` are those the next actions will answer.

        Returns:
            td_error: the mean absolute error of the real steps.
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
        return {"td_error": float(error.abs().mean())}

    @property
    def values(self) -> Tensor:
        """[S], max_a Q."""
        return self.q.amax(dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Table, visits, and the learned model where there is one."""
        model = {} if self.model is None else self.model.state_dict()
        return {"q": self.q, "visits": self.visits} | {f"model.{name}": value for name, value in model.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved table. Raises ValueError if it has another shape."""
        check_shape("table", tensors["q"], self.q.shape)
        self.q, self.visits = tensors["q"].clone(), tensors["visits"].clone()
        if self.model is not None:
            self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})

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
