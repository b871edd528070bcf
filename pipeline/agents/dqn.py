"""DQN: Q-learning with a network, steadied by a replay memory and by a target network that lags behind.

Mnih et al. 2015, Algorithm 1. Both can be switched off, to see what each is for.
"""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pipeline.agents.agent import Exploration
from pipeline.agents.environments import Array, Experience, Step
from pipeline.agents.errors import AgentError
from pipeline.agents.networks import Encoder, QNetwork
from pipeline.agents.replay import ReplayBuffer
from pipeline.config import DqnConfig
from pipeline.rl.action_values import epsilon_greedy, successor_values
from pipeline.rl.losses import q_learning_loss
from pipeline.rl.returns import td_target


class DqnAgent:
    """Args: the spaces of one environment, and the settings.

    Raises:
        AgentError: unless actions are Discrete.
    """

    def __init__(
        self, observation_space: spaces.Space[object], action_space: spaces.Space[object], config: DqnConfig
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise AgentError(f"dqn: action space {action_space} is continuous; DQN compares single actions, use ppo")
        self.config = config
        self.encode = Encoder(observation_space)
        self._exploration = Exploration(config.epsilon_start, config.epsilon_end, config.epsilon_share)
        self.epsilon = config.epsilon_start
        self._random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            shape = (self.encode.width, int(action_space.n), config.hidden)
            self.online = QNetwork(*shape, dueling=config.dueling)
            self.target = QNetwork(*shape, dueling=config.dueling) if config.target_network else self.online
        self.target.load_state_dict(self.online.state_dict())
        self._parameters = list(self.online.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)
        capacity = config.buffer if config.replay else max(config.train_every, config.copies)
        self.memory = ReplayBuffer(capacity, observation_space, self._random)
        self._steps = self._learned = self._copied = 0

    def anneal(self, share: float) -> None:
        """Explore as becomes `share` of the training."""
        self.epsilon = self._exploration.epsilon(share)

    @torch.no_grad()
    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """[E] actions: ε-greedy, or the best ones."""
        q = self.online(self.encode(torch.as_tensor(observations)))
        if greedy:
            return np.asarray(q.argmax(dim=1))
        return np.asarray(torch.multinomial(epsilon_greedy(q, self.epsilon), 1, generator=self._random)[:, 0])

    def learn(self, step: Step, observations: Array) -> dict[str, float] | None:
        """Remember one step of every copy; learn and copy to the target network when due."""
        cfg = self.config
        self.memory.add(step)
        self._steps += len(step.rewards)
        if self._steps < cfg.learning_starts:
            return None
        figures = None
        if self._steps - self._learned >= cfg.train_every:
            self._learned = self._steps
            losses = [self._descend(self.memory.sample(cfg.batch_size)) for _ in range(cfg.gradient_steps)]
            figures = {"loss": float(torch.stack(losses).mean()), "epsilon": self.epsilon}
        if cfg.target_network and self._steps - self._copied >= cfg.target_every:
            self._copied = self._steps
            self.target.load_state_dict(self.online.state_dict())
        return figures

    def _descend(self, batch: Experience) -> Tensor:
        """One optimiser step; returns the loss."""
        cfg = self.config
        targets = self.targets(batch)
        q = self.online(self.encode(batch.states))
        delta = 1.0 if cfg.loss == "huber" else None
        loss = q_learning_loss(q, batch.actions, targets, huber_delta=delta).mean()
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, cfg.max_grad_norm)
        self._optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def targets(self, batch: Experience) -> Tensor:
        """y = r + γ V(s'), V = 0 where terminated; V from the target network, its action perhaps the online one's."""
        successors = self.encode(batch.successors)
        q = self.target(successors)
        if self.config.double:
            after = successor_values(q, "taken", actions=self.online(successors).argmax(dim=1))
        else:
            after = successor_values(q, "max")
        return td_target(batch.rewards, after, self.config.gamma * (~batch.terminated).to(q.dtype))

    def state_dict(self) -> dict[str, Tensor]:
        """The online network."""
        return self.online.state_dict()

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved network, for the target too."""
        self.online.load_state_dict(tensors)
        self.target.load_state_dict(tensors)
