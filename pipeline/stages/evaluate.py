"""Did the model get better? Base, SFT and policy answer the same held-out prompts; an independent judge compares."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config
from pipeline.evaluation.compare import compare, describe, pick_best
from pipeline.evaluation.judges import Answer, RewardModelJudge
from pipeline.evaluation.statistics import detectable
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, generate
from pipeline.lm.policy import rollout_logprobs, to_rollout
from pipeline.lm.reward import RewardModel
from pipeline.progress import Bar, bar
from pipeline.rl.kl import kl_k1, kl_k3
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.inputs import demonstrations, encode_prompts, load_backbone, machine, prompt_text, read

# (winner asked about, baseline); the first is the headline.
PAIRS = (
    ("policy", "sft"),
    ("sft", "base"),
    ("policy", "base"),
    ("policy", "best_of_n"),
    ("best_of_n", "sft"),
)


def run(config: Config, run_dir: RunDir, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Sample, judge, compare."""
    cfg = config.evaluate
    source = read(config, cfg.data, "prompts")
    backbone = load_backbone(config)
    for stage, name in (("sft", "sft"), ("policy", "policy"), ("reward", "reward")):
        backbone.restore(name, run_dir.artifact(stage, name))
    judge_name = "judge" if "judge" in run_dir.require("reward").artifacts else "reward"
    if judge_name == "judge":
        backbone.restore("judge", run_dir.artifact("reward", "judge"))
    reward, judge = (
        RewardModelJudge(RewardModel(backbone, name), batch_size=cfg.batch_size // 2 or 1)
        for name in ("reward", judge_name)
    )
    encoded = encode_prompts(backbone.chat, source)
    prompts = [ids for _, ids in encoded]
    systems: dict[str, tuple[str | None, int]] = {
        "base": (None, 1),
        "sft": ("sft", 1),
        "policy": ("policy", 1),
    }
    if cfg.best_of > 1:
        systems["best_of_n"] = ("sft", cfg.best_of)
    answers: dict[str, list[Answer]] = {}
    divergence: dict[str, float] = {}
    before = checkpoints.latest("evaluate")
    if before is not None:
        answers = {name: [Answer(**row) for row in rows] for name, rows in before["answers"].items()}
        divergence, reward.known, judge.known = before["divergence"], before["rewards"], before["scores"]

    def state() -> dict[str, Any]:
        rows = {name: [asdict(answer) for answer in found] for name, found in answers.items()}
        return {"answers": rows, "divergence": divergence, "rewards": reward.known, "scores": judge.known}

    total, done = (sum(len(prompts) * systems[name][1] for name in names) for names in (systems, answers))
    with bar("evaluate", total, visible=config.logging.progress, done=done) as progress:
        for offset, (name, (adapter, count)) in enumerate(systems.items()):
            if name in answers:
                continue
            # Different noise for each system: best-of-n must not contain the very answer it is compared with.
            generator = torch.Generator(backbone.device).manual_seed(config.seed + offset)
            groups, parts = sample(backbone, adapter, prompts, count, config, generator, progress)
            answers[name] = pick_best(groups, reward) if count > 1 else [group[0] for group in groups]
            if name == "policy":
                divergence = kl_to_reference(backbone, parts, config)
            for one in (judge, reward):
                one.score(answers[name])
            if backbone.lower is not None:
                backbone.lower.forget()  # or the next system's figures would depend on this one's in the last digit
            checkpoints.step("evaluate", state)
    scores = {name: judge.score(rows) for name, rows in answers.items()}
    rewards = {name: reward.score(rows) for name, rows in answers.items()}
    rates = compare(scores, PAIRS, resamples=cfg.bootstrap, seed=config.seed)
    out.sample(side_by_side(encoded, answers, scores, rewards))
    win_rates = {f"win_rate.{pair}{suffix}": v for pair, rate in rates.items() for suffix, v in rate.figures().items()}
    metrics = {
        "judge": judge_name,
        "judge_accuracy": run_dir.require("reward").metrics["judge_accuracy" if judge_name == "judge" else "accuracy"],
        "prompts": len(prompts),
        "best_of": cfg.best_of,
        "detectable_rate": detectable(len(prompts)),
        **win_rates,
        **divergence,
        **{f"judge_score.{name}": sum(values) / len(values) for name, values in scores.items()},
        **{f"reward_score.{name}": sum(values) / len(values) for name, values in rewards.items()},
        **describe(answers, demonstrations(config)),
    }
    return out.finish(
        metrics,
        data={"evaluate": source.account(prompts=len(prompts))},
        **machine(backbone),
    )


def sample(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[list[int]],
    count: int,
    config: Config,
    generator: torch.Generator,
    progress: Bar,
) -> tuple[list[list[Answer]], list[Completions]]:
    """`count` answers per prompt under `adapter`; prompts of similar length share a batch."""
    sampling = config.evaluate.sampling or config.policy.sampling
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    groups: list[list[Answer]] = [[] for _ in prompts]
    parts = []
    size = max(1, config.evaluate.batch_size // count)
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        done = generate(
            backbone,
            adapter,
            [prompts[i] for i in chunk],
            group_size=count,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            generator=generator,
        )
        for row, prompt in enumerate(done.prompts):
            ids = done.ids(row)
            groups[chunk[row // count]].append(Answer(prompt, ids, backbone.chat.decode(ids), bool(done.stopped[row])))
        parts.append(done)
        progress.advance(len(done.prompts), {"system": adapter or "base"})
    return groups, parts


def kl_to_reference(backbone: Backbone, parts: Sequence[Completions], config: Config) -> dict[str, float]:
    """KL(policy ‖ SFT) on the policy's own samples: k1 per sequence, k3 per token. Nats."""
    temperature = (config.evaluate.sampling or config.policy.sampling).temperature
    per_sequence: list[float] = []
    per_token = tokens = 0.0
    for completions in parts:
        rollout = to_rollout(backbone, completions)
        batch = config.evaluate.batch_size // 2 or 1
        policy, reference = (
            rollout_logprobs(backbone, name, rollout, temperature=temperature, batch_size=batch)
            for name in ("policy", "sft")
        )
        per_sequence += kl_k1(policy, reference).sum(1).tolist()
        per_token += kl_k3(policy, reference)[rollout.mask].sum().item()
        tokens += int(rollout.mask.sum())
    return {"kl": sum(per_sequence) / len(per_sequence), "kl_per_token_k3": per_token / max(1.0, tokens)}


def side_by_side(
    encoded: Sequence[Any],
    answers: dict[str, list[Answer]],
    scores: dict[str, list[float]],
    rewards: dict[str, list[float]],
) -> list[dict[str, Any]]:
    """One row per prompt with every system's answer and scores, for samples.jsonl."""
    return [
        {
            "prompt": prompt_text(prompt.messages),
            "category": prompt.meta.get("category"),
            "answers": {
                name: {
                    "text": rows[index].text,
                    "tokens": len(rows[index].ids),
                    "stopped": rows[index].stopped,
                    "judge": round(scores[name][index], 4),
                    "reward": round(rewards[name][index], 4),
                }
                for name, rows in answers.items()
            },
        }
        for index, (prompt, _) in enumerate(encoded)
    ]
