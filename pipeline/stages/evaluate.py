"""Did the model get better? Base, SFT and policy answer the same held-out prompts; an independent judge compares."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config
from pipeline.data.schema import Prompt, prompt_text
from pipeline.evaluation.compare import compare, describe, pick_best
from pipeline.evaluation.judges.protocol import Answer, ByScore, Scorer
from pipeline.evaluation.judges.reward import RewardModelScorer
from pipeline.evaluation.statistics import detectable
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, generate
from pipeline.lm.policy import rollout_logprobs, to_rollout
from pipeline.lm.reward import RewardModel
from pipeline.progress import Bar, bar
from pipeline.rl.kl import kl_k1, kl_k3
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.inputs import demonstrations, encode_prompts, load_backbone, machine, read
from pipeline.stages.judges import build_judges
from pipeline.stages.verdicts import (
    ByPair,
    ask_judges,
    compare_pairs,
    first_outcomes,
    from_rows,
    judge_metrics,
    to_rows,
)

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
        RewardModelScorer(RewardModel(backbone, name), batch_size=cfg.batch_size // 2 or 1)
        for name in ("reward", judge_name)
    )
    judges = build_judges(config, run_dir, backbone)
    encoded = encode_prompts(backbone.chat, source)
    systems: dict[str, tuple[str | None, int]] = {  # adapter, and candidates of which the best counts
        "base": (None, 1),
        "sft": ("sft", 1),
        "policy": ("policy", 1),
    }
    if cfg.best_of > 1:
        systems["best_of_n"] = ("sft", cfg.best_of)
    answers: dict[str, list[list[Answer]]] = {}
    divergence: dict[str, float] = {}
    verdicts: dict[str, ByPair] = {}
    before = checkpoints.latest("evaluate")
    if before is not None:
        answers = {
            name: [[Answer(**row) for row in rows] for rows in found] for name, found in before["answers"].items()
        }
        divergence, reward.known, judge.known = before["divergence"], before["rewards"], before["scores"]
        verdicts = from_rows(before["verdicts"])

    def state() -> dict[str, Any]:
        rows = {name: [[asdict(answer) for answer in rows] for rows in found] for name, found in answers.items()}
        scored = {"rewards": reward.known, "scores": judge.known}
        return {"answers": rows, "divergence": divergence, **scored, "verdicts": to_rows(verdicts)}

    def keep() -> None:
        if backbone.lower is not None:
            backbone.lower.forget()  # or the next figures would depend on these in the last digit
        checkpoints.step("evaluate", state)

    each = len(encoded) * cfg.samples
    total, done = (sum(each * systems[name][1] for name in names) for names in (systems, answers))
    with bar("evaluate", total, visible=config.logging.progress, done=done) as progress:
        for offset, (name, (adapter, count)) in enumerate(systems.items()):
            if name in answers:
                continue
            # Different noise for each system: best-of-n must not contain the very answer it is compared with.
            generator = torch.Generator(backbone.device).manual_seed(config.seed + offset)
            groups, parts = sample(backbone, adapter, encoded, count * cfg.samples, config, generator, progress)
            answers[name] = best_of(groups, count, reward)
            if name == "policy":
                divergence = kl_to_reference(backbone, parts, config)
            for one in (judge, reward):
                one.score([answer for group in answers[name] for answer in group])
            keep()
    ask_judges(judges, answers, cfg.judge_pairs, verdicts, keep)
    scores, rewards = (
        {name: [one.score(group) for group in groups] for name, groups in answers.items()} for one in (judge, reward)
    )
    rates = compare(ByScore(judge), answers, PAIRS, resamples=cfg.bootstrap, seed=config.seed)
    own = compare_pairs(ByScore(judge), answers, cfg.judge_pairs)
    out.sample(side_by_side(encoded, answers, scores, rewards, {judge_name: own, **verdicts}))
    win_rates = {f"win_rate.{pair}{suffix}": v for pair, rate in rates.items() for suffix, v in rate.figures().items()}
    metrics = {
        "judge": judge_name,
        "judge_accuracy": run_dir.require("reward").metrics["judge_accuracy" if judge_name == "judge" else "accuracy"],
        "prompts": len(encoded),
        "samples": cfg.samples,
        "best_of": cfg.best_of,
        "detectable_rate": detectable(len(encoded)),
        **win_rates,
        **judge_metrics(verdicts, own),
        **divergence,
        **{f"judge_score.{name}": float(np.mean(values)) for name, values in scores.items()},
        **{f"reward_score.{name}": float(np.mean(values)) for name, values in rewards.items()},
        **describe(answers, demonstrations(config)),
    }
    return out.finish(
        metrics,
        data={"evaluate": source.account(prompts=len(encoded))},
        **machine(backbone),
    )


def sample(
    backbone: Backbone,
    adapter: str | None,
    encoded: Sequence[tuple[Prompt, list[int]]],
    count: int,
    config: Config,
    generator: torch.Generator,
    progress: Bar,
) -> tuple[list[list[Answer]], list[Completions]]:
    """`count` answers per prompt under `adapter`; prompts of similar length share a batch."""
    sampling = config.evaluate.sampling or config.policy.sampling
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][1]))
    groups: list[list[Answer]] = [[] for _ in encoded]
    parts = []
    size = max(1, config.evaluate.batch_size // count)
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        done = generate(
            backbone,
            adapter,
            [encoded[i][1] for i in chunk],
            group_size=count,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            generator=generator,
        )
        for row in range(len(done.prompts)):
            place, ids = chunk[row // count], done.ids(row)
            prompt, prompt_ids = encoded[place]
            text, stopped = backbone.chat.decode(ids), bool(done.stopped[row])
            groups[place].append(Answer(prompt.messages, text, prompt_ids, ids, stopped))
        parts.append(done)
        progress.advance(len(done.prompts), {"system": adapter or "base"})
    return groups, parts


def best_of(groups: Sequence[Sequence[Answer]], count: int, scorer: Scorer) -> list[list[Answer]]:
    """Of every `count` samples of a prompt the one that `scorer` scores highest."""
    parts = [group[start : start + count] for group in groups for start in range(0, len(group), count)]
    best = iter(pick_best(parts, scorer) if count > 1 else [part[0] for part in parts])
    return [[next(best) for _ in range(len(group) // count)] for group in groups]


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
    encoded: Sequence[tuple[Prompt, list[int]]],
    answers: dict[str, list[list[Answer]]],
    scores: dict[str, list[list[float]]],
    rewards: dict[str, list[list[float]]],
    verdicts: dict[str, ByPair],
) -> list[dict[str, Any]]:
    """One row per prompt with every system's first answer, its scores, and the judges' verdicts on policy vs SFT, for
    samples.jsonl."""
    return [
        {
            "prompt": prompt_text(prompt.messages),
            "category": prompt.meta.get("category"),
            "answers": {
                name: {
                    "text": groups[index][0].text,
                    "tokens": len(groups[index][0].ids),
                    "stopped": groups[index][0].stopped,
                    "judge": round(scores[name][index][0], 4),
                    "reward": round(rewards[name][index][0], 4),
                }
                for name, groups in answers.items()
            },
            "verdicts": first_outcomes(verdicts, index),
        }
        for index, (prompt, _) in enumerate(encoded)
    ]
