"""Policy optimisation against the frozen reward model: PPO, REINFORCE, REINFORCE++, RLOO, GRPO, Dr. GRPO.

The algorithms share rollouts, KL price and end-of-sequence rules; they differ in the advantage estimator, the loss
and the normaliser only.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config, PolicyConfig
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs, rollout_values
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.kl import AdaptiveKL, kl_k1
from pipeline.rl.objective import Objective
from pipeline.rl.rollout import Rollout
from pipeline.rl.schedules import falling
from pipeline.rl.update import update
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.inputs import encode_prompts, load_backbone, read
from pipeline.stages.policy_log import Clock, figures, outcome, sample_rows

NORMALIZE = {"ppo": "whiten", "reinforce": "scale", "rloo": "scale"}
AGGREGATE = {"grpo": "sequence", "dr_grpo": "constant"}


def run(config: Config, run_dir: RunDir, out: StageDir) -> StageResult:
    """Optimise the policy against a frozen reward model."""
    cfg = config.policy
    torch.manual_seed(config.seed)
    source = read(config, cfg.data, "prompts")
    backbone = load_adapters(config, run_dir)
    encoded = encode_prompts(backbone.chat, source, cfg.max_prompt_length)
    learner = Learner(backbone, cfg, config.seed)
    policy = learner.policy
    reward_model = RewardModel(backbone, "reward")
    history: list[dict[str, float]] = []

    with bar(f"policy ({cfg.algorithm})", cfg.steps, visible=config.logging.progress) as progress:
        for step, batch in enumerate(prompt_batches(encoded, cfg.prompts_per_step, cfg.steps, config.seed), start=1):
            clock = Clock()
            # 1. Act: B = prompts × group_size completions, padded to T tokens.
            with clock("generate"):
                rollout = policy.generate(
                    [ids for _, ids in batch],
                    group_size=cfg.group_size,
                    max_new_tokens=cfg.sampling.max_new_tokens,
                    generator=learner.sampler,
                )
            # 2. Judge: one score per completion, minus a price per token for leaving the reference.
            with clock("reward"):
                scores = reward_model.score(rollout, batch_size=2 * cfg.microbatch_size)  # [B]
                final = end_of_sequence_rule(scores, rollout.context["stopped"], cfg)  # [B]
            with clock("reference"):
                ref_logprobs = logprobs_under("sft", policy, rollout)  # [B,T]
                if step == 1:
                    rollout, mismatch = check_sampler(policy, rollout)
                kl = kl_k1(rollout.logprobs, ref_logprobs)  # [B,T], 0 at padding
                price = learner.kl_coef if cfg.kl_in == "reward" else 0.0
                rollout = rollout.with_rewards(-price * kl, final=final, ref_logprobs=ref_logprobs)
            # 3. Credit: how much better than expected was each token?
            with clock("credit"):
                rollout, advantages, returns = learner.credit(rollout)
            # 4. Improve: the same update() that trains the classic agents.
            with clock("update"):
                stats = learner.improve(rollout, advantages, returns, step)
            row = figures(rollout, scores, kl.sum(1), learner.kl_coef, cfg) | stats | clock.seconds()
            learner.adapt(kl.sum(1))
            out.log(step, row | ({"policy/sampler_mismatch": mismatch} if step == 1 else {}))
            history.append(row)
            if step == 1 or step % cfg.sample_every == 0 or step == cfg.steps:
                out.sample(sample_rows(step, batch, rollout, scores, kl.sum(1), cfg, backbone.chat))
            if backbone.lower is not None:
                backbone.lower.forget()  # no completion comes twice
            progress.advance(figures={name: row[f"objective/{name}"] for name in ("score", "kl", "tokens", "eos_rate")})

    metrics = outcome(history) | {"sampler_mismatch": mismatch, "algorithm": cfg.algorithm, "steps": cfg.steps}
    return out.finish(
        metrics | {"trainable_parameters": learner.trainable},
        artifacts=save_adapters(backbone, cfg, out),
        data={"policy": source.account(prompts=len(encoded))},
        device=str(backbone.device),
        dtype=str(backbone.dtype).removeprefix("torch."),
    )


def load_adapters(config: Config, run_dir: RunDir) -> Backbone:
    """The base with every role: sft (the reference), reward, policy, and critic where the algorithm has one."""
    backbone = load_backbone(config)
    backbone.adapters.load("sft", run_dir.artifact("sft", "sft"))
    backbone.adapters.load("reward", run_dir.artifact("reward", "reward"))
    backbone.adapters.clone("sft", "policy")  # so KL(policy ‖ reference) starts at 0
    if config.policy.needs_critic and config.policy.critic == "adapter":
        backbone.adapters.clone("reward", "critic")
    return backbone


def save_adapters(backbone: Backbone, cfg: PolicyConfig, out: StageDir) -> dict[str, str]:
    """Save what was learned; returns the artifacts."""
    backbone.save("policy", out.path / "adapter", role={"role": "policy", "algorithm": cfg.algorithm})
    artifacts = {"policy": "adapter"}
    if "critic" in backbone.adapters:
        backbone.save("critic", out.path / "critic", role={"role": "critic"})
        artifacts["critic"] = "critic"
    return artifacts


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
        )
        if cfg.needs_critic:
            self.policy.start_values_at_zero()
        roles = self.policy.trainable_parameters()
        rates = {"policy": cfg.learning_rate, "critic": cfg.critic_learning_rate}
        groups = [{"params": parameters, "lr": rates[role]} for role, parameters in roles.items()]
        self.trainable = sum(p.numel() for parameters in roles.values() for p in parameters)
        self.optimizer = torch.optim.AdamW(groups, eps=cfg.adam_eps, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_factor(cfg, step))
        self.controller = AdaptiveKL(cfg.kl_coef, cfg.kl_target, cfg.kl_horizon) if cfg.kl_target else None
        self.sampler = torch.Generator(backbone.device).manual_seed(seed)
        self.permutations = torch.Generator().manual_seed(seed)

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
            generator=self.permutations,
        )
        self.schedule.step()
        return stats | {"policy/learning_rate": rate}

    def adapt(self, kl: Tensor) -> None:
        """Steer the KL price by this step's KL per sequence [B], where it is adaptive."""
        if self.controller is not None:
            self.controller.update(kl.mean().item(), len(kl))


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


def prompt_batches(encoded: list[Any], size: int, steps: int, seed: int) -> Iterator[list[Any]]:
    """`steps` batches of prompts; a fresh order every pass, none left out."""
    rng = random.Random(seed)
    queue: list[Any] = []
    for _ in range(steps):
        while len(queue) < size:
            queue += rng.sample(encoded, len(encoded))
        batch, queue = queue[:size], queue[size:]
        yield batch


def end_of_sequence_rule(scores: Tensor, stopped: Tensor, cfg: PolicyConfig) -> Tensor:
    """Scores [B] after clipping and after the rule for completions that met the limit."""
    if cfg.score_clip is not None:
        scores = scores.clamp(-cfg.score_clip, cfg.score_clip)
    if cfg.missing_eos == "replace":
        return torch.where(stopped, scores, torch.full_like(scores, cfg.missing_eos_value))
    return torch.where(stopped, scores, scores + cfg.missing_eos_value)


def logprobs_under(adapter: str, policy: LanguagePolicy, rollout: Rollout) -> Tensor:
    """log π [B,T] of the rollout's tokens under `adapter`, at the policy's temperature."""
    return rollout_logprobs(
        policy.backbone, adapter, rollout, temperature=policy.temperature, batch_size=policy.batch_size
    )


def check_sampler(policy: LanguagePolicy, rollout: Rollout) -> tuple[Rollout, float]:
    """Compare the log-probs kept while sampling with a fresh pass, and go on with the fresh ones.

    In the first step the policy still is the reference: computed the same way, their KL is exactly 0. Later steps
    keep the sampler's log-probs; by how much they may differ was measured here.
    """
    fresh = logprobs_under(policy.adapter, policy, rollout)
    mismatch = (fresh - rollout.logprobs)[rollout.mask].abs().max().item()
    return replace(rollout, logprobs=fresh), mismatch
