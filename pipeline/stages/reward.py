"""Pairwise reward models: `reward`, which the policy will climb, and `judge` (`judge_2`, …), which it never sees.

The pairs are split by prompt: a test part for the reported accuracy, and of the rest a share for the reward model and
the other for the judge, which therefore knows nothing the policy could have learned to please.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, RewardConfig
from pipeline.data.rows import DataError
from pipeline.data.splits import split_by_prompt
from pipeline.evaluation.reward_card import length_baseline
from pipeline.gates import require
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, generate
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.rl.losses import pairwise_loss
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.fit import Task, compute_lower, fit
from pipeline.stages.inputs import Source, encode_pairs, load_backbone, machine, read, reward_section
from pipeline.stages.proving import prove_fit, wanted
from pipeline.stages.scored_pairs import COMPARED, Pairs, batch_error, lengths, measure, score_pairs

SAMPLED_AT_ONCE = 48  # calibration prompts in one batch


def run(config: Config, run_dir: RunDir, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Train the reward model (and the judges), each starting from a copy of the SFT adapter."""
    cfg = reward_section(config)
    source = read(config, cfg.data, "preferences")
    backbone = load_backbone(config)
    backbone.restore("sft", run_dir.artifact("sft", "sft"))
    parts = split_pairs(source.rows, cfg, config.seed)
    encoded = {
        name: encode_pairs(backbone.chat, Source(rows, source.bad, {}), cfg.max_length) for name, rows in parts.items()
    }
    answers, ended = _sft_answers(backbone, encoded["reward"], config)
    metrics: dict[str, Any] = {"sft_eos_rate": ended}
    require("reward", metrics, config.gates.skip)
    for offset, name in enumerate(["reward", *cfg.judge_names]):
        part = "reward" if name == "reward" else "judge"  # all judges learn from the same pairs
        pairs, held = encoded[part], encoded[f"{part}_validation"]
        torch.manual_seed(config.seed + offset)
        order = config.seed + max(0, offset - 1)  # judges differ in order and head
        model, best = train(backbone, name, pairs, held, config, out, checkpoints, seed=order)
        statistics = _standardise(model, answers, 2 * cfg.microbatch_size)
        figures = best | measure(model, encoded["test"] or held, cfg.microbatch_size, scale=statistics["score_std"])
        metrics |= {f"{'' if name == 'reward' else f'{name}_'}{key}": value for key, value in figures.items()}
        if name == "reward":
            metrics["score_batch_error"] = batch_error(model, answers[:COMPARED])
        backbone.save(name, out.path / name, role={"role": name} | statistics)
    metrics |= length_baseline(*lengths(encoded["test"] or encoded["reward_validation"]))
    metrics["test_pairs"] = len(encoded["test"])
    counts = {name: len(pairs) for name, pairs in encoded.items()}
    return out.finish(
        metrics,
        artifacts={name: name for name in ("reward", *cfg.judge_names)},
        data={"reward": source.account(**counts)},
        **machine(backbone),
    )


def split_pairs(rows: Sequence[Any], cfg: RewardConfig, seed: int) -> dict[str, list[Any]]:
    """Rows by use, disjoint by prompt: test, and training and validation parts for each model."""
    shares = {"test": cfg.test} if cfg.test > 0 else {}
    for name, part in (("reward", 1 - cfg.judge), ("judge", cfg.judge)):
        if part == 0:
            continue
        share = (1 - cfg.test) * part
        shares[name] = share * (1 - cfg.validation)
        shares[f"{name}_validation"] = share * cfg.validation
    positive = {name: share for name, share in shares.items() if share > 0}
    parts = split_by_prompt(list(rows), positive, seed=seed)
    return {name: parts.get(name, []) for name in ["test", *shares]}


def trained_prompts(config: Config, name: str) -> set[str] | None:
    """Keys of the prompts whose pairs `reward` or one of the judges has learned from or been chosen by; None where the
    training data isn't there any more."""
    try:
        rows = read(config, reward_section(config).data, "preferences").rows
    except DataError:
        return None
    part = "reward" if name == "reward" else "judge"  # all judges learn from the same pairs
    parts = split_pairs(rows, reward_section(config), config.seed)
    return {row.key for use in (part, f"{part}_validation") for row in parts.get(use, [])}


def train(
    backbone: Backbone,
    name: str,
    pairs: Pairs,
    held: Pairs,
    config: Config,
    out: StageDir,
    checkpoints: Checkpoints,
    *,
    seed: int,
) -> tuple[RewardModel, dict[str, Any]]:
    """Fit one reward model, starting from a copy of the SFT adapter, on pairs in the order that `seed` gives; returns
    it with the figures of its best epoch."""
    cfg, visible = reward_section(config), config.logging.progress
    backbone.roles.clone("sft", name)
    backbone.roles.add_head(name)
    parameters = backbone.roles.train_only(name)
    model = RewardModel(backbone, name)

    def loss(batch: Pairs) -> Tensor:
        with backbone.roles.dropout():
            return pair_loss(model, batch, cfg)

    task = Task(
        examples=pairs,
        length=lambda pair: len(pair.chosen) + len(pair.rejected),
        weight=lambda pair: 1.0,
        loss=loss,
        validate=lambda: _validation(model, held or pairs, cfg),
        metric="loss",
        prepare=lambda: compute_lower(
            backbone,
            [sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)],
            2 * cfg.microbatch_size,
            visible=visible,
        ),
    )
    if wanted(backbone, config.gates.prove_memory):
        prove_fit("reward", task, parameters, cfg)
    best = fit(task, parameters, cfg, out, name=name, seed=seed, checkpoints=checkpoints, visible=visible)
    return model, {
        "validation_accuracy": best["accuracy"],
        "validation_loss": best["loss"],
        "best_epoch": best["epoch"],
        "steps": best["steps"],
        "train_pairs": len(pairs),
        "trainable_parameters": sum(p.numel() for p in parameters),
    }


def pair_loss(model: RewardModel, batch: Pairs, cfg: RewardConfig) -> Tensor:
    """Sum over a batch of −log σ(r_chosen − r_rejected − margin) + centering·(r_c + r_r)², with gradient."""
    scores = model.scores([pair.chosen for pair in batch] + [pair.rejected for pair in batch])
    chosen, rejected = scores.chunk(2)
    margin = torch.tensor([pair.margin if cfg.margins else 0.0 for pair in batch], device=scores.device)
    return pairwise_loss(chosen, rejected, margin=margin, centering=cfg.centering).sum()


def _validation(model: RewardModel, pairs: Pairs, cfg: RewardConfig) -> dict[str, float]:
    chosen, rejected = score_pairs(model, pairs, 2 * cfg.microbatch_size)
    return {
        "loss": pairwise_loss(chosen, rejected).mean().item(),
        "accuracy": (chosen > rejected).float().mean().item(),
    }


def sft_samples(backbone: Backbone, prompts: Sequence[Sequence[int]], config: Config) -> Iterator[Completions]:
    """One answer of the SFT model to each prompt, in batches."""
    sampling = config.policy.sampling
    generator = torch.Generator(backbone.device).manual_seed(config.seed)
    with bar("calibration", len(prompts), visible=config.logging.progress) as progress:
        for start in range(0, len(prompts), SAMPLED_AT_ONCE):
            done = generate(
                backbone,
                "sft",
                prompts[start : start + SAMPLED_AT_ONCE],
                temperature=sampling.temperature,
                max_new_tokens=sampling.max_new_tokens,
                generator=generator,
            )
            yield done
            progress.advance(len(done.prompts))


def _sft_answers(backbone: Backbone, pairs: Pairs, config: Config) -> tuple[list[list[int]], float]:
    """Samples of the SFT model on the pairs' prompts, as whole sequences: what a score of 0 means; and the share of
    them that end by themselves."""
    distinct = dict.fromkeys(tuple(pair.chosen[: pair.prompt_length]) for pair in pairs)
    sequences: list[list[int]] = []
    ended = 0
    for done in sft_samples(backbone, list(distinct)[: reward_section(config).calibration_samples], config):
        sequences += [prompt + done.ids(row) for row, prompt in enumerate(done.prompts)]
        ended += int(done.stopped.sum())
    return sequences, ended / len(sequences)


def _standardise(model: RewardModel, answers: list[list[int]], batch_size: int) -> dict[str, float]:
    """Shift and scale the head so that SFT answers score mean 0, deviation 1; returns what it was before."""
    scores = model.score_sequences(answers, batch_size=batch_size)
    mean, std = scores.mean().item(), max(scores.std(correction=0).item(), 1e-6)
    model.standardise(mean, std)
    return {"score_mean": mean, "score_std": std}
