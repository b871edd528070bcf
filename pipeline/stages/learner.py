"""What learns in the policy stage, and how each algorithm makes it learn: advantages, loss, normaliser."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline import processes
from pipeline.checkpoints import overwrite
from pipeline.config import PolicyConfig
from pipeline.lm.backbone import Backbone
from pipeline.lm.continuous_sampler import ContinuousSampler
from pipeline.lm.generate import Sampler, give_back
from pipeline.lm.policy import LanguagePolicy, rollout_values
from pipeline.lm.vllm_sampler import VllmSampler
from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.kl import AdaptiveKL
from pipeline.rl.objective import Objective
from pipeline.rl.rollout import Rollout
from pipeline.rl.schedules import falling
from pipeline.rl.update import update
from pipeline.stages.optimisers import make_optimizer

NORMALIZE = {"ppo": "whiten", "reinforce": "scale", "rloo": "scale"}
AGGREGATE = {"grpo": "sequence", "dr_grpo": "constant"}


class Learner:
    """The policy with its optimiser, schedule, KL price and random states, and the steps that use them."""

    def __init__(self, backbone: Backbone, cfg: PolicyConfig, seed: int) -> None:
        self.cfg = cfg
        self.policy = LanguagePolicy(
            backbone,
            critic=cfg.critic if cfg.needs_critic else None,
            temperature=cfg.sampling.temperature,
            entropy_gradient=cfg.entropy_coef > 0,
            batch_size=2 * cfg.microbatch_size,
            sampler=sampler_for(backbone, cfg),
        )
        if cfg.needs_critic:
            self.policy.start_values_at_zero()
        roles = self.policy.trainable_parameters()
        rates = {"policy": cfg.learning_rate, "critic": cfg.critic_learning_rate}
        groups = [{"params": parameters, "lr": rates[role]} for role, parameters in roles.items()]
        self.parameters = [p for parameters in roles.values() for p in parameters]
        processes.alike(self.parameters)
        self.trainable = sum(p.numel() for p in self.parameters)
        self.optimizer = make_optimizer(cfg.optimizer, groups, eps=cfg.adam_eps, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_factor(cfg, step))
        self.controller = AdaptiveKL(cfg.kl_coef, cfg.kl_target, cfg.kl_horizon) if cfg.kl_target else None
        self.recomputes = cfg.recompute_logprobs == "always" or (
            cfg.recompute_logprobs == "auto" and (cfg.sampler != "own" or backbone.dtype != torch.float32)
        )
        self.sampler = torch.Generator(backbone.device).manual_seed(seed)
        self.permutations = torch.Generator().manual_seed(seed)
        self.at_hand: Rollout | None = None  # what this step works on, to be looked at if it breaks

    def state(self) -> dict[str, Any]:
        """All that must be kept to go on exactly, as `restore` takes it."""
        return {
            "parameters": self.parameters,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "controller": None if self.controller is None else self.controller.state_dict(),
            "sampler": self.sampler.get_state(),
            "permutations": self.permutations.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another process left."""
        overwrite(self.parameters, state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
        self.sampler.set_state(state["sampler"])
        self.permutations.set_state(state["permutations"])

    @property
    def kl_coef(self) -> float:
        """The price of a nat, fixed or adaptive."""
        return self.controller.coef if self.controller is not None else self.cfg.kl_coef

    def credit(self, rollout: Rollout) -> tuple[Rollout, Tensor, Tensor | None]:
        """The rollout with the critic's values if there is one, advantages [B,T], and returns for the critic."""
        cfg = self.cfg
        if cfg.needs_critic:
            rollout = rollout.with_values(rollout_values(self.policy, rollout))
        normalize: Any = NORMALIZE.get(cfg.algorithm, "none")
        advantages, returns = estimate_advantages(
            cfg.algorithm,
            rollout,
            group_size=cfg.group_size,
            gamma=cfg.gamma,
            gae_lambda=cfg.gae_lambda,
            normalize=normalize if cfg.normalize_advantages == "auto" else cfg.normalize_advantages,
        )
        return rollout, advantages, returns

    def improve(self, rollout: Rollout, advantages: Tensor, returns: Tensor | None, step: int) -> dict[str, float]:
        """Optimise on one rollout; returns the statistics of `update`."""
        cfg = self.cfg
        give_back()  # what the passes before have freed: an update holds the most
        warming = cfg.needs_critic and step <= cfg.critic_warmup_steps
        self.policy.values_only = warming
        rate = float(self.schedule.get_last_lr()[0])
        stats = update(
            self.policy,
            self.optimizer,
            rollout,
            advantages,
            returns,
            objective(cfg),
            epochs=cfg.epochs,
            minibatch_size=cfg.minibatch_size,
            microbatch_size=cfg.microbatch_size,
            max_grad_norm=cfg.max_grad_norm,
            target_kl=cfg.target_kl,
            train_policy=not warming,
            group_size=cfg.group_size,  # a group's prompt is computed once
            generator=self.permutations,
            processes=processes,
        )
        self.schedule.step()
        return stats | {"policy/learning_rate": rate}

    def adapt(self, kl: Tensor) -> None:
        """Steer the KL price by this step's KL per sequence [B], where it is adaptive."""
        if self.controller is not None:
            self.controller.update(kl.mean().item(), len(kl))


def sampler_for(backbone: Backbone, cfg: PolicyConfig) -> Sampler | None:
    """The configured engine; None = our own. vLLM gets room for the longest prompt and completion."""
    if cfg.sampler == "own":
        return None
    if cfg.sampler == "transformers":
        return ContinuousSampler(backbone)
    longest = cfg.max_prompt_length + cfg.sampling.max_new_tokens
    return VllmSampler(backbone, memory=cfg.vllm_memory, max_length=longest)


def objective(cfg: PolicyConfig) -> Objective:
    """The loss of the configured algorithm: the plain policy gradient for REINFORCE, PPO's clipped ratio else."""
    aggregate: Any = AGGREGATE.get(cfg.algorithm, "token") if cfg.aggregate == "auto" else cfg.aggregate
    return Objective(
        policy_loss="policy_gradient" if cfg.algorithm == "reinforce" else "ppo_clip",
        clip_low=cfg.clip_low,
        clip_high=cfg.clip_high,
        aggregate=aggregate,
        max_length=cfg.sampling.max_new_tokens,
        value_coef=cfg.value_coef,
        value_clip=cfg.value_clip,
        entropy_coef=cfg.entropy_coef,
        kl_coef=cfg.kl_coef if cfg.kl_in == "loss" else 0.0,
        kl_estimator=cfg.kl_loss if cfg.kl_in == "loss" else None,
    )


def rate_factor(cfg: PolicyConfig, step: int) -> float:
    """Learning-rate factor of a step: linear warm-up, then constant or linear decay."""
    if step < cfg.warmup_steps:
        return (step + 1) / (cfg.warmup_steps + 1)
    return falling(1.0, cfg.schedule, step / cfg.steps)
