"""DQN: Q-learning with a network, steadied by a replay memory and by a target network that lags behind.

Mnih et al. 2015, Algorithm 1. Both can be switched off, to see what each is for.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pipeline.agents.agent import Exploration
from pipeline.agents.environments import Array, Experience, Step
from pipeline.agents.errors import AgentError
from pipeline.agents.frames import FrameReplay
from pipeline.agents.networks import Encoder, q_network
from pipeline.agents.replay import ReplayBuffer
from pipeline.agents.rewards import clipped
from pipeline.agents.vision import choose
from pipeline.config import DqnConfig
from pipeline.rl.action_values import explore, polyak_step, successor_values
from pipeline.rl.gradients import clear_gradients, clip_gradients
from pipeline.rl.losses import q_learning_gradient
from pipeline.rl.returns import n_step_target, td_target
from pipeline.rl.schedules import falling

AT_ONCE = 512  # rows of a forward pass without gradient: what a core's cache holds


class DqnAgent:
    """Args: the spaces of one environment, the settings, and how many frames an observation is stacked of, if it is.

    Raises:
        AgentError: unless actions are Discrete, and where network and observations don't fit.
    """

    def __init__(
        self,
        observation_space: spaces.Space[object],
        action_space: spaces.Space[object],
        config: DqnConfig,
        *,
        stack: int = 1,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise AgentError(f"dqn: action space {action_space} is continuous; DQN compares single actions, use ppo")
        self.config = config
        self.encode = Encoder(observation_space, pictures=choose(observation_space, config.network) is not None)
        self._exploration = Exploration(config.epsilon_start, config.epsilon_end, config.epsilon_share)
        self.epsilon = config.epsilon_start
        self._random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            shape = (observation_space, int(action_space.n), config.hidden)
            kind: Any = {"network": config.network, "dueling": config.dueling, "precision": config.precision}
            self.online = q_network(*shape, **kind)
            self.target = q_network(*shape, **kind) if config.target_network else self.online
        self.target.load_state_dict(self.online.state_dict())
        self._parameters, self._followers = list(self.online.parameters()), list(self.target.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)
        self._space, self._stack = observation_space, stack
        self._steps = self._learned = self._copied = 0

    @cached_property
    def memory(self) -> ReplayBuffer | FrameReplay:
        """Made when the first step comes in: an agent that only plays remembers nothing."""
        cfg = self.config
        if cfg.replay and self._stack > 1:
            return FrameReplay(cfg.buffer, self._space, cfg.copies, self._random, n_step=cfg.n_step)
        capacity = cfg.buffer if cfg.replay else max(cfg.train_every, cfg.copies)
        return ReplayBuffer(capacity, self._space, self._random, n_step=cfg.n_step)

    def anneal(self, share: float) -> None:
        """Explore and step as becomes `share` of the training."""
        self.epsilon = self._exploration.epsilon(share)
        self._optimizer.param_groups[0]["lr"] = falling(self.config.learning_rate, self.config.schedule, share)

    @torch.no_grad()
    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """[E] actions: ε-greedy, or the best ones."""
        q = self.online(self.encode(torch.as_tensor(observations)))
        if greedy:
            return np.asarray(q.argmax(dim=1))
        return np.asarray(explore(q, self.epsilon, self._random))

    def learn(self, step: Step, observations: Array) -> dict[str, float] | None:
        """Remember one step of every copy; learn and copy to the target network when due."""
        cfg = self.config
        self.memory.add(clipped(step) if cfg.clip_rewards else step)
        self._steps += len(step.rewards)
        if self._steps < cfg.learning_starts:
            return None
        figures = None
        if self._steps - self._learned >= cfg.train_every:
            self._learned = self._steps
            figures = {"loss": self._bout(), "epsilon": self.epsilon}
        if cfg.target_network and self._steps - self._copied >= cfg.target_every:
            self._copied = self._steps
            polyak_step(self._followers, self._parameters, cfg.target_rate)
        return figures

    def _bout(self) -> float:
        """`gradient_steps` optimiser steps; returns their mean loss."""
        cfg = self.config
        batch = self.memory.sample(cfg.gradient_steps * cfg.batch_size)
        states = self.encode(batch.states)
        # The target network stands still during a bout, so it can be asked once; the online network can't.
        ahead = self.targets(batch) if cfg.target_network and not cfg.double else None
        total = 0.0
        for start in range(0, len(states), cfg.batch_size):
            rows = slice(start, start + cfg.batch_size)
            targets = self.targets(batch.rows(rows)) if ahead is None else ahead[rows]
            total += self._descend(states[rows], batch.actions[rows], targets)
        return total / cfg.gradient_steps

    def _descend(self, states: Tensor, actions: Tensor, targets: Tensor) -> float:
        """One optimiser step on encoded states; returns the loss."""
        delta = 1.0 if self.config.loss == "huber" else None
        clear_gradients(self._parameters)
        loss = self.online.backward(states, lambda q: q_learning_gradient(q, actions, targets, huber_delta=delta))
        clip_gradients(self._parameters, self.config.max_grad_norm)
        self._optimizer.step()
        return loss

    @torch.no_grad()
    def targets(self, batch: Experience) -> Tensor:
        """y = r + γ V(s'), V = 0 where terminated, or the same over a chain of steps; V from the target network, its
        action perhaps the online one's."""
        successors = self.encode(batch.successors)
        if len(successors) <= AT_ONCE:
            q = self.target(successors)
        else:
            q = torch.cat([self.target(part) for part in successors.split(AT_ONCE)])
        if self.config.double:
            after = successor_values(q, "taken", actions=self.online(successors).argmax(dim=1))
        else:
            after = successor_values(q, "max")
        if batch.lengths is not None:
            return n_step_target(batch.rewards, batch.lengths, after, batch.terminated, self.config.gamma)
        return td_target(batch.rewards, after, self.config.gamma * (~batch.terminated).to(q.dtype))

    def state_dict(self) -> dict[str, Tensor]:
        """The online network."""
        return self.online.state_dict()

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved network, for the target too."""
        self.online.load_state_dict(tensors)
        self.target.load_state_dict(tensors)
