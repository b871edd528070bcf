"""REINFORCE, A2C and PPO: gather, ask the critic, credit, improve; with the functions that train language models.

They differ in three choices: what is gathered (episodes or a horizon), how steps are credited, and the objective.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pipeline.agents.environments import Array, Step
from pipeline.agents.memory import EpisodeMemory, HorizonMemory, Memory, Trajectories
from pipeline.agents.networks import ActorCritic
from pipeline.agents.rewards import RewardScale, clipped
from pipeline.config import A2cConfig, OnPolicyConfig, PpoConfig, ReinforceConfig
from pipeline.rl.advantages import Algorithm, estimate_advantages
from pipeline.rl.objective import Objective
from pipeline.rl.rollout import Rollout
from pipeline.rl.schedules import falling
from pipeline.rl.update import update

TELL_EVERY = 0.01  # share of the training between updates that gather statistics


class PolicyGradientAgent:
    """Args: the spaces of one environment, and the settings, which choose the algorithm.

    Raises:
        AgentError: for spaces that `ActorCritic` doesn't know.
    """

    def __init__(
        self, observation_space: spaces.Space[object], action_space: spaces.Space[object], config: OnPolicyConfig
    ) -> None:
        self.config = config
        self._random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = ActorCritic(
                observation_space,
                action_space,
                hidden=config.hidden,
                network=config.network,
                precision=config.precision,
                activation=config.activation,
                critic=credit(config) != "reward_to_go",
                squash=config.squash,
                initial_log_std=config.initial_log_std,
                normalize=config.normalize_observations,
                entropy_gradient=config.entropy_coef > 0,
            )
        self._optimizer = optimizer(config, self.network)
        self._rewards = RewardScale(config.copies, config.gamma) if config.normalize_rewards else None
        self._memory = memory(config)
        self._chosen = torch.empty(0)
        self._share = self._told = 0.0

    def anneal(self, share: float) -> None:
        """Step and clip as becomes `share` of the training."""
        self._share = share

    @torch.no_grad()
    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """Sampled actions, or the likeliest."""
        distribution = self.network.distribution(torch.as_tensor(observations))
        if greedy:
            return np.asarray(self.network.to_environment(distribution.mode()))
        self._chosen = distribution.sample(self._random)
        return np.asarray(self.network.to_environment(self._chosen))

    def learn(self, step: Step, observations: Array) -> dict[str, float] | None:
        """Gather one step of every copy; update when there is enough."""
        if self.config.clip_rewards:
            step = clipped(step)
        gathered = self._memory.add(self._rewards(step) if self._rewards else step, self._chosen)
        if gathered is None:
            return None
        rollout = self.second_look(gathered)
        figures = self._improve(rollout)
        self.network.encode.watch(gathered.states[gathered.mask])
        return figures

    def second_look(self, gathered: Trajectories) -> Rollout:
        """The rollout: log-probs and values of all steps in one pass, by the policy that acted."""
        logprobs, values, following = self.network.second_look(gathered.states, gathered.actions, gathered.successors)
        return Rollout(
            context={"states": gathered.states},
            actions=gathered.actions,
            logprobs=logprobs,
            rewards=gathered.rewards,
            mask=gathered.mask,
            terminated=gathered.terminated,
            truncated=gathered.truncated,
            values=values,
            next_values=following,
        )

    def _improve(self, rollout: Rollout) -> dict[str, float]:
        cfg = self.config
        self._optimizer.param_groups[0]["lr"] = falling(cfg.learning_rate, cfg.schedule, self._share)
        advantages, returns = estimate_advantages(
            credit(cfg),
            rollout,
            gamma=cfg.gamma,
            gae_lambda=cfg.gae_lambda if isinstance(cfg, A2cConfig | PpoConfig) else 1.0,
            normalize=cfg.normalize_advantages,
        )
        tell = self._share - self._told >= TELL_EVERY
        if tell:
            self._told = self._share
        self.network.watch_entropy = tell
        passes: dict[str, Any] = {"minibatch_size": len(rollout)}
        if isinstance(cfg, PpoConfig):  # minibatches mix steps of all copies
            passes = {"epochs": cfg.epochs, "minibatch_size": cfg.minibatch_size, "target_kl": cfg.target_kl}
            assert returns is not None
            advantages, returns = (part[rollout.mask][:, None] for part in (advantages, returns))
            rollout = rollout.flatten()
        return update(
            self.network,
            self._optimizer,
            rollout,
            advantages,
            returns,
            objective(cfg, self._share),
            max_grad_norm=cfg.max_grad_norm,
            statistics=tell,
            generator=self._random,
            **passes,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Networks and observation moments."""
        moments = self.network.encode.moments
        extra = {} if moments is None else {f"moments.{name}": value for name, value in moments.state_dict().items()}
        return {**self.network.state_dict(), **extra}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a saved agent."""
        moments = self.network.encode.moments
        prefix = "moments."
        if moments is not None:
            moments.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        self.network.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(prefix)})


def optimizer(config: OnPolicyConfig, network: ActorCritic) -> torch.optim.Optimizer:
    """RMSprop where A2C asks for it, as its paper did; Adam otherwise."""
    if isinstance(config, A2cConfig) and config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=config.learning_rate, alpha=0.99, eps=1e-5, foreach=False)
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)


def memory(config: OnPolicyConfig) -> Memory:
    """Episodes for REINFORCE, a horizon for the others."""
    if isinstance(config, ReinforceConfig):
        return EpisodeMemory(config.episodes, config.copies)
    assert isinstance(config, A2cConfig | PpoConfig)
    return HorizonMemory(config.horizon)


def credit(config: OnPolicyConfig) -> Algorithm:
    """The advantage estimator: reward-to-go without a critic, GAE with one."""
    if isinstance(config, ReinforceConfig) and config.baseline == "none":
        return "reward_to_go"
    return "ppo" if isinstance(config, PpoConfig) else "a2c"


def objective(config: OnPolicyConfig, share: float) -> Objective:
    """PPO's clipped ratio, or the plain policy gradient."""
    if not isinstance(config, PpoConfig):
        return Objective(
            policy_loss="policy_gradient",
            value_coef=config.value_coef,
            value_clip=None,
            entropy_coef=config.entropy_coef,
        )
    clip = falling(config.clip, config.clip_schedule, share)
    return Objective(
        policy_loss="ppo_clip",
        clip_low=min(1.0, clip),
        clip_high=clip,
        value_coef=config.value_coef,
        value_clip=config.value_clip,
        entropy_coef=config.entropy_coef,
    )
