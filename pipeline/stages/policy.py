"""Policy optimisation against the frozen reward model: PPO, REINFORCE, REINFORCE++, RLOO, GRPO, Dr. GRPO.

The algorithms share rollouts, KL price and end-of-sequence rules; they differ in the advantage estimator, the loss and
the normaliser only.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config, PolicyConfig
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs, rollout_values
from pipeline.lm.reward import Calibration, RewardModel, completion_ids
from pipeline.rl.advantages import estimate_advantages, zero_variance_share
from pipeline.rl.kl import AdaptiveKL, kl_k1
from pipeline.rl.objective import Objective
from pipeline.rl.rollout import Rollout
from pipeline.rl.update import update
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.inputs import encode_prompts, load_backbone, prompt_text, read
from pipeline.stages.progress import bar

NORMALIZE = {"ppo": "whiten", "reinforce": "scale", "rloo": "scale"}
AGGREGATE = {"grpo": "sequence", "dr_grpo": "constant"}
LAST = 0.2  # share of the steps whose mean is reported as the outcome


def run(config: Config, run_dir: RunDir, out: StageDir) -> StageResult:
    """Optimise the policy against a frozen reward model."""
    cfg = config.policy
    torch.manual_seed(config.seed)
    source = read(cfg.data, "prompts")
    backbone = load_backbone(config)
    backbone.load_adapter("sft", run_dir.artifact("sft", "sft"))
    backbone.load_adapter("reward", run_dir.artifact("reward", "reward"))
    backbone.clone_adapter("sft", "policy")  # so KL(policy ‖ reference) starts at 0
    if cfg.needs_critic and cfg.critic == "adapter":
        backbone.clone_adapter("reward", "critic")
    policy = LanguagePolicy(
        backbone,
        critic=cfg.critic if cfg.needs_critic else None,
        temperature=cfg.sampling.temperature,
        entropy_gradient=cfg.entropy_coef > 0,
    )
    reward_model = RewardModel(backbone, "reward", Calibration.load(run_dir.artifact("reward", "reward")))
    roles = policy.trainable_parameters()
    rates = {"policy": cfg.learning_rate, "critic": cfg.critic_learning_rate}
    groups = [{"params": parameters, "lr": rates[role]} for role, parameters in roles.items()]
    optimizer = torch.optim.AdamW(groups, eps=cfg.adam_eps, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(cfg, step))
    kl_controller = (
        AdaptiveKL(cfg.kl_coef, cfg.kl_target, cfg.kl_horizon) if cfg.kl_target is not None else None
    )
    sampler = torch.Generator(backbone.device).manual_seed(config.seed)
    permutations = torch.Generator().manual_seed(config.seed)
    encoded = encode_prompts(backbone.chat, source, cfg.max_prompt_length)
    micro = cfg.microbatch_size
    history: list[dict[str, float]] = []

    with bar(f"policy ({cfg.algorithm})", cfg.steps, visible=config.logging.progress) as progress:
        for step, batch in enumerate(
            prompt_batches(encoded, cfg.prompts_per_step, cfg.steps, config.seed), start=1
        ):
            clock = Clock()
            kl_coef = kl_controller.coef if kl_controller is not None else cfg.kl_coef
            # 1. Act: B = prompts × group_size completions, padded to T tokens.
            with clock("generate"):
                rollout = policy.generate(
                    [ids for _, ids in batch],
                    group_size=cfg.group_size,
                    max_new_tokens=cfg.sampling.max_new_tokens,
                    generator=sampler,
                )
            # 2. Judge: one score per completion, minus a price per token for leaving the reference.
            with clock("reward"):
                scores = reward_model.score(rollout, batch_size=2 * micro)  # [B]
                priced = end_of_sequence_rule(scores, rollout.context["stopped"], cfg)
            with clock("reference"):
                reference = logprobs_under(policy, "sft", rollout, micro)  # [B,T]
                if step == 1:
                    rollout, mismatch = check_sampler(policy, rollout, micro)
                kl = kl_k1(rollout.logprobs, reference)  # [B,T], 0 at padding
                price = kl_coef if cfg.kl_in == "reward" else 0.0
                rollout = rollout.with_rewards(-price * kl, final=priced, ref_logprobs=reference)
            # 3. Credit: how much better than expected was each token?
            with clock("value"):
                if cfg.needs_critic:
                    rollout = rollout.with_values(rollout_values(policy, rollout, batch_size=2 * micro))
                advantages, returns = estimate_advantages(
                    cfg.algorithm,
                    rollout,
                    group_size=cfg.group_size,
                    gamma=cfg.gamma,
                    gae_lambda=cfg.gae_lambda,
                    normalize=chosen_normalize(cfg),
                )
            # 4. Improve: the same update() that trains the classic agents.
            with clock("update"):
                stats = update(
                    policy,
                    optimizer,
                    rollout,
                    advantages,
                    returns,
                    objective(cfg),
                    epochs=cfg.epochs,
                    minibatch_size=cfg.minibatch_size,
                    microbatch_size=micro,
                    max_grad_norm=cfg.max_grad_norm,
                    target_kl=cfg.target_kl,
                    train_policy=not (cfg.needs_critic and step <= cfg.critic_warmup_steps),
                    generator=permutations,
                )
            schedule.step()
            if kl_controller is not None:
                kl_controller.update(kl.sum(1).mean().item(), len(rollout))
            row = figures(rollout, scores, priced, kl.sum(1), kl_coef, cfg) | stats | clock.seconds()
            row["policy/learning_rate"] = schedule.get_last_lr()[0]
            if step == 1:
                row["policy/sampler_mismatch"] = mismatch
            out.log(step, row)
            history.append(row)
            if step == 1 or step % cfg.sample_every == 0 or step == cfg.steps:
                out.sample(sample_rows(step, batch, rollout, scores, kl.sum(1), cfg, backbone.chat))
            shown = {
                "score": row["objective/score"],
                "kl": row["objective/kl"],
                "tokens": row["objective/tokens"],
            }
            progress.advance(figures=shown | {"eos": row["objective/eos_rate"]})

    backbone.save_adapter(
        "policy", out.path / "adapter", extra={"role": "policy", "algorithm": cfg.algorithm}
    )
    artifacts = {"policy": "adapter"}
    if cfg.needs_critic and cfg.critic == "adapter":
        backbone.save_adapter("critic", out.path / "critic", extra={"role": "critic"})
        artifacts["critic"] = "critic"
    trainable = sum(p.numel() for parameters in roles.values() for p in parameters)
    return out.finish(
        outcome(history)
        | {"algorithm": cfg.algorithm, "steps": cfg.steps, "trainable_parameters": trainable},
        artifacts=artifacts,
        data={"policy": source.account(prompts=len(encoded))},
        device=str(backbone.device),
        dtype=str(backbone.dtype).removeprefix("torch."),
    )


def objective(cfg: PolicyConfig) -> Objective:
    """The loss of the configured algorithm: the plain policy gradient for REINFORCE, PPO's clipped ratio else."""
    aggregate = AGGREGATE.get(cfg.algorithm, "token") if cfg.aggregate == "auto" else cfg.aggregate
    return Objective(
        policy_loss="policy_gradient" if cfg.algorithm == "reinforce" else "ppo_clip",
        clip_low=cfg.clip_low,
        clip_high=cfg.clip_high,
        aggregate=aggregate,  # type: ignore[arg-type]
        max_length=cfg.sampling.max_new_tokens,
        value_coef=cfg.value_coef,
        value_clip=cfg.value_clip,
        entropy_coef=cfg.entropy_coef,
        kl_coef=cfg.kl_coef if cfg.kl_in == "loss" else 0.0,
        kl_estimator=cfg.kl_loss if cfg.kl_in == "loss" else None,
    )


def chosen_normalize(cfg: PolicyConfig) -> Any:
    """How advantages are normalised, 'auto' resolved."""
    return (
        NORMALIZE.get(cfg.algorithm, "none")
        if cfg.normalize_advantages == "auto"
        else cfg.normalize_advantages
    )


def rate_factor(cfg: PolicyConfig, step: int) -> float:
    """Learning-rate factor of a step: linear warm-up, then constant or linear decay."""
    if step < cfg.warmup_steps:
        return (step + 1) / (cfg.warmup_steps + 1)
    return 1.0 if cfg.schedule == "constant" else max(0.0, 1 - step / cfg.steps)


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


def logprobs_under(policy: LanguagePolicy, adapter: str, rollout: Rollout, micro: int) -> Tensor:
    """log π of the rollout's tokens under `adapter`, at the policy's temperature."""
    return rollout_logprobs(
        policy.backbone, adapter, rollout, temperature=policy.temperature, batch_size=2 * micro
    )


def check_sampler(policy: LanguagePolicy, rollout: Rollout, micro: int) -> tuple[Rollout, float]:
    """Compare the log-probs kept while sampling with a fresh pass, and go on with the fresh ones.

    In the first step the policy still is the reference: computed the same way, their KL is exactly 0. Later steps keep
    the sampler's log-probs; what they may differ by was measured here.
    """
    fresh = logprobs_under(policy, policy.adapter, rollout, micro)
    mismatch = (fresh - rollout.logprobs)[rollout.mask].abs().max().item()
    return replace(rollout, logprobs=fresh), mismatch


def figures(
    rollout: Rollout, scores: Tensor, priced: Tensor, kl: Tensor, kl_coef: float, cfg: PolicyConfig
) -> dict[str, float]:
    """What one step's completions were like."""
    row = {
        "objective/score": scores.mean().item(),
        "objective/score_std": scores.std().item() if len(scores) > 1 else 0.0,
        "objective/return": (priced - (kl_coef * kl if cfg.kl_in == "reward" else 0)).mean().item(),
        "objective/kl": kl.mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/tokens": rollout.lengths.float().mean().item(),
        "objective/eos_rate": rollout.context["stopped"].float().mean().item(),
    }
    if cfg.group_size > 1:
        row["objective/equal_groups"] = zero_variance_share(priced.view(-1, cfg.group_size))
    return row


def sample_rows(
    step: int, batch: list[Any], rollout: Rollout, scores: Tensor, kl: Tensor, cfg: PolicyConfig, chat: Any
) -> list[dict[str, Any]]:
    """The first completion of each of the step's prompts, to read."""
    rows = []
    for index, (prompt, _) in enumerate(batch[:4]):
        row = index * cfg.group_size
        rows.append(
            {
                "step": step,
                "prompt": prompt_text(prompt.messages),
                "completion": chat.decode(completion_ids(rollout, row)),
                "score": round(scores[row].item(), 4),
                "kl": round(kl[row].item(), 4),
                "stopped": bool(rollout.context["stopped"][row]),
            }
        )
    return rows


def outcome(history: list[dict[str, float]]) -> dict[str, Any]:
    """First and last figures of training, and the median time per iteration with its parts."""
    last = history[-max(1, round(len(history) * LAST)) :]
    mean = {
        name: sum(row[f"objective/{name}"] for row in last) / len(last)
        for name in ("score", "kl", "tokens", "eos_rate")
    }
    times = {name: _median([row[name] for row in history]) for name in history[0] if name.startswith("time/")}
    return {
        "score_first": history[0]["objective/score"],
        "kl_first": history[0]["objective/kl"],
        "first_ratio_error": history[0].get("policy/first_ratio_error", 0.0),
        "sampler_mismatch": history[0]["policy/sampler_mismatch"],
        **mean,
        "seconds_per_iteration": times.pop("time/total"),
        **{f"seconds_{name.removeprefix('time/')}": value for name, value in times.items()},
    }


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


class Clock:
    """Seconds of an iteration by phase."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._phases[f"time/{phase}"] = round(time.perf_counter() - start, 4)

    def seconds(self) -> dict[str, float]:
        """Each phase and the total, as time/<phase>."""
        return {**self._phases, "time/total": round(time.perf_counter() - self._start, 4)}
