"""Policy optimisation against what is rewarded (stages/terms.py): PPO, REINFORCE, REINFORCE++, RLOO, GRPO, Dr. GRPO.

The algorithms share rollouts, KL price and end-of-sequence rules; they differ in the advantage estimator, the loss
and the normaliser only.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, PolicyConfig
from pipeline.data.schema import Prompt
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.progress import bar
from pipeline.rl.kl import kl_k1, kl_k3
from pipeline.rl.losses import truncated_importance
from pipeline.rl.rollout import Rollout
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.inputs import encode_prompts, load_backbone, machine, read
from pipeline.stages.learner import Learner
from pipeline.stages.policy_log import Clock, figures, sample_rows
from pipeline.stages.proving import prove_policy, wanted
from pipeline.stages.replay import offending_batch_kept
from pipeline.stages.score import Score
from pipeline.stages.terms import calibration, restore_terms
from pipeline.stages.training import Training


def run(config: Config, run_dir: RunDir, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Optimise the policy against frozen reward models and functions."""
    cfg, visible = config.policy, config.logging.progress
    torch.manual_seed(config.seed)
    source = read(config, cfg.data, "prompts")
    backbone = load_adapters(config, run_dir)
    encoded = encode_prompts(backbone.chat, source, cfg.max_prompt_length)
    training = Training(config, backbone)
    if wanted(backbone, config.gates.prove_memory):
        prove_policy(training.learner, [ids for _, ids in encoded])
    training.restore(checkpoints.latest("policy"))
    batches = prompt_batches(encoded, cfg.prompts_per_step, cfg.steps, config.seed)
    if not training.score.terms.calibrated:
        training.score.terms.calibrate(calibration(backbone, encoded, config))
        if backbone.lower is not None:
            backbone.lower.forget()  # no completion comes twice
    done = len(training.history)
    with bar(f"policy ({cfg.algorithm})", cfg.steps, visible=visible, done=done) as progress:
        for step, batch in islice(enumerate(batches, start=1), done, None):
            with offending_batch_kept(out, training.learner, step):
                rollout, scores, kl, row = iterate(training.learner, training.score, batch, step)
                out.log(step, row)
            training.look_back(row)
            if step == 1 or step % cfg.sample_every == 0 or step == cfg.steps or training.stopped_by:
                out.sample(sample_rows(step, batch, rollout, scores, kl, cfg.group_size, backbone))
            progress.advance(figures={name: row[f"objective/{name}"] for name in ("score", "kl", "tokens", "eos_rate")})
            if training.stopped_by:
                break
            checkpoints.step("policy", training.state)
    return out.finish(
        training.outcome(),
        artifacts=save_adapters(backbone, cfg, out),
        data={"policy": source.account(prompts=len(encoded))},
        **machine(backbone),
    )


def iterate(
    learner: Learner, score: Score, batch: Sequence[tuple[Prompt, list[int]]], step: int
) -> tuple[Rollout, Tensor, Tensor, dict[str, float]]:
    """One step of any algorithm on a batch of prompts [P] with their tokens; returns the rollout, scores [B], KL [B] in
    nats, and the figures."""
    cfg, policy = learner.cfg, learner.policy
    clock = Clock(policy.backbone.device)
    # 1. Act: B = prompts × group_size completions, padded to T tokens.
    with clock("generate"):
        rollout = policy.generate(
            [ids for _, ids in batch],
            group_size=cfg.group_size,
            max_new_tokens=cfg.sampling.max_new_tokens,
            generator=learner.sampler,
        )
        learner.at_hand = rollout
    # 2. Judge: one score per completion (the terms' weighted sum), minus a price per token for leaving the reference.
    with clock("reward"):
        scores, final, extra = score(rollout, [prompt for prompt, _ in batch])  # [B], [B]
    sampled = rollout.logprobs
    with clock("reference"):
        ref_logprobs = logprobs_under("sft", policy, rollout)  # [B,T]
        if step == 1 or learner.recomputes:
            rollout = replace(rollout, logprobs=logprobs_under(policy.adapter, policy, rollout))
            extra |= sampler_mismatch(rollout, sampled, cfg.max_sampler_kl)
        kl = kl_k1(rollout.logprobs, ref_logprobs)  # [B,T], 0 at padding
        price = learner.kl_coef if cfg.kl_in == "reward" else 0.0
        rollout = learner.at_hand = rollout.with_rewards(-price * kl, final=final, ref_logprobs=ref_logprobs)
    # 3. Credit: how much better than expected was each token?
    with clock("credit"):
        rollout, advantages, returns = learner.credit(rollout)
        learner.at_hand = rollout
        if learner.recomputes:
            weight = truncated_importance(rollout.logprobs, sampled, cap=cfg.importance_cap)
            advantages = advantages * weight
            extra["policy/importance_mean"] = weight[rollout.mask].mean().item()
            extra["policy/importance_max"] = weight[rollout.mask].max().item()
    # 4. Improve: the same update() that trains the classic agents.
    with clock("update"):
        stats = learner.improve(rollout, advantages, returns, step)
    row = figures(rollout, scores, kl.sum(1), learner.kl_coef, cfg) | stats | clock.seconds() | extra
    learner.adapt(kl.sum(1))
    if policy.backbone.lower is not None:
        policy.backbone.lower.forget()  # no completion comes twice
    return rollout, scores, kl.sum(1), row


def load_adapters(config: Config, run_dir: RunDir) -> Backbone:
    """The base with every role: sft (the reference), reward, judge, policy, and critic where the algorithm has one."""
    backbone = load_backbone(config)
    backbone.restore("sft", run_dir.artifact("sft", "sft"))
    for name in ("reward", "judge") if config.reward is not None else ():
        if name in run_dir.require("reward").artifacts:
            backbone.restore(name, run_dir.artifact("reward", name))
    restore_terms(config, backbone)
    backbone.roles.clone("sft", "policy")  # so KL(policy ‖ reference) starts at 0
    if config.policy.needs_critic and config.policy.critic == "adapter":
        backbone.roles.clone("sft" if config.reward is None else "reward", "critic")
    return backbone


def save_adapters(backbone: Backbone, cfg: PolicyConfig, out: StageDir) -> dict[str, str]:
    """Save what was learned; returns the artifacts."""
    backbone.save("policy", out.path / "adapter", role={"role": "policy", "algorithm": cfg.algorithm})
    artifacts = {"policy": "adapter"}
    if "critic" in backbone.roles:
        backbone.save("critic", out.path / "critic", role={"role": "critic"})
        artifacts["critic"] = "critic"
    return artifacts


def prompt_batches(encoded: list[Any], size: int, steps: int, seed: int) -> Iterator[list[Any]]:
    """`steps` batches of prompts; a fresh order every pass, none left out."""
    rng = random.Random(seed)
    queue: list[Any] = []
    for _ in range(steps):
        while len(queue) < size:
            queue += rng.sample(encoded, len(encoded))
        batch, queue = queue[:size], queue[size:]
        yield batch


def logprobs_under(adapter: str, policy: LanguagePolicy, rollout: Rollout) -> Tensor:
    """log π [B,T] of the rollout's tokens under `adapter`, at the policy's temperature."""
    return rollout_logprobs(
        policy.backbone, adapter, rollout, temperature=policy.temperature, batch_size=policy.batch_size
    )


def sampler_mismatch(rollout: Rollout, sampled: Tensor, limit: float) -> dict[str, float]:
    """How far the log-probs kept while sampling [B,T] are from a fresh pass. Nats.

    In fp32 they agree up to rounding: the first step goes on with the fresh ones, so that KL(policy ‖ SFT) is exactly 0
    there, and later steps keep the sampler's.

    Raises:
        FloatingPointError: they differ by more than `limit` a token.
    """
    difference = (rollout.logprobs - sampled)[rollout.mask].abs().max().item()
    divergence = kl_k3(sampled, rollout.logprobs)[rollout.mask].mean().item()
    if not divergence <= limit:
        raise FloatingPointError(
            f"the sampler is {divergence:.2g} nats a token from the policy (policy.max_sampler_kl {limit:g}): it runs "
            "other weights, another temperature or another chat template"
        )
    return {"policy/sampler_mismatch": difference, "policy/sampler_kl": divergence}
