"""A run's reward model, or its judge, on pairs: those the run kept apart for a test, or those of any file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import Config, DataConfig
from pipeline.data.rows import BadRows
from pipeline.data.schema import Preference, prompt_text
from pipeline.evaluation.reward_card import CardError, ScoredPairs, agreement, card, hardest
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import mean_logprobs
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.rundir import RunDir
from pipeline.stages.best_of_n import curves
from pipeline.stages.chain import stage_fingerprint
from pipeline.stages.inputs import EncodedPair, Source, encode_pairs, load_backbone, open_run, read, reward_section
from pipeline.stages.reward import split_pairs, trained_prompts
from pipeline.stages.scored_pairs import COMPARED, batch_error, score_pairs, scored_pairs

SUBSETS = ("subset", "category", "failure")  # columns that name a part of the data, the most usual first
SHOWN = 10  # of the hardest errors
BATCHES = 8  # that are scored between two moves of the progress bar

Pairs = Sequence[EncodedPair]


def examine(
    run_path: Path,
    data: str | None = None,
    *,
    adapter: str = "reward",
    by: str | None = None,
    limit: int | None = None,
    split: str = "train",
    max_length: int | None = None,
    best_of: int = 0,
) -> dict[str, Any]:
    """Every figure of the card under its key (docs/evaluation.md lists them).

    Args:
        run_path: the run's folder.
        data: a preference file or a hub id; None = the run's own test part.
        adapter: reward or judge.
        by: the column that names subsets; None = the first of SUBSETS that is there.
        limit: use so many pairs.
        split: of a hub data set.
        max_length: tokens of prompt and answer together; None = as in training.
        best_of: answers that are sampled from SFT for a best-of-n curve; 0 = none.

    Raises:
        CardError: the run has no such model, no test part that can be told, or the data no such column.
        DataError, RunError: the data or the run can't be read.
    """
    config, run_dir = open_run(run_path)
    names = models(run_dir, adapter)
    rows, info = _file_rows(config, data, adapter, limit, split) if data else _own_rows(config, run_dir, adapter, limit)
    column = subset_column(rows.rows, by)
    backbone = load_backbone(config)
    for name in names:
        backbone.restore(name, run_dir.artifact("reward", name))
    length = max_length or reward_section(config).max_length
    pairs = encode_pairs(backbone.chat, rows, length)
    if not pairs:
        raise CardError(f"no pair is left: all answers agree up to token {length}; raise --max-length")
    scored = score_all(backbone, run_dir, names, pairs, column, config)
    figures = {
        "adapter": adapter,
        **info,
        "by": column,
        "prompts": len(set(scored[adapter].prompts)),
        "left_out": sum(rows.bad.counts.values()),
        "truncated": float(np.mean([max(len(p.chosen), len(p.rejected)) >= length for p in pairs])),
        "random_baseline": 0.5,
        "score_batch_error": batch_error(RewardModel(backbone, adapter), _some_of_each_length(pairs)),
        **card(scored[adapter]),
        **_agreements(scored, adapter),
        "hardest": _hardest(pairs, scored[adapter]),
    }
    if best_of:
        backbone.restore("sft", run_dir.artifact("sft", "sft"))
        figures |= curves(config, backbone, pairs, names, best_of)
    return figures


def models(run_dir: RunDir, adapter: str) -> list[str]:
    """The run's models that score, the one that is asked about first.

    Raises:
        CardError: it isn't among them.
    """
    found = [name for name in ("reward", "judge") if name in run_dir.require("reward").artifacts]
    if adapter not in found:
        raise CardError(f"{run_dir.path} has no {adapter!r} model; it has {' and '.join(found)}")
    return sorted(found, key=lambda name: name != adapter)


def _own_rows(config: Config, run_dir: RunDir, adapter: str, limit: int | None) -> tuple[Source, dict[str, Any]]:
    """The pairs that the run's reward stage kept apart, which only the settings it ran under can tell."""
    if stage_fingerprint(config, run_dir, "reward") != run_dir.require("reward").fingerprint:
        raise CardError(
            f"settings or data of {run_dir.path} have changed since its reward model was trained, so its test pairs "
            "can't be told; run `align reward` again, or name a file of pairs"
        )
    source = read(config, reward_section(config).data, "preferences")
    parts = split_pairs(source.rows, reward_section(config), config.seed)
    rows = parts["test"] or parts.get(f"{adapter}_validation", [])
    return Source(rows[:limit], BadRows("skip"), {}), {"data": "the run's own test pairs"}


def _file_rows(config: Config, data: str, adapter: str, limit: int | None, split: str) -> tuple[Source, dict[str, Any]]:
    """Pairs of a file without bad ones, and the share of them whose prompt was trained on, where that is known."""
    section = DataConfig(
        source=data, split=split, limit=limit, on_bad_row="skip", system=reward_section(config).data.system
    )
    source = read(config, section, "preferences")
    known = trained_prompts(config, adapter)
    if known is None:
        return source, {"data": data}
    return source, {"data": data, "seen_prompts": float(np.mean([row.key in known for row in source.rows]))}


def subset_column(rows: Sequence[Preference], by: str | None) -> str | None:
    """The column whose values name subsets; None where there is none.

    Raises:
        CardError: the one that was asked for isn't there.
    """
    columns = {column for row in rows for column, value in row.meta.items() if value is not None}
    if by is not None and by not in columns:
        known = ", ".join(sorted(columns)) or "none but prompt and answers"
        raise CardError(f"the data has no column {by!r} to take subsets from; it has {known}")
    return by or next((name for name in SUBSETS if name in columns), None)


def score_all(
    backbone: Backbone, run_dir: RunDir, names: Sequence[str], pairs: Pairs, by: str | None, config: Config
) -> dict[str, ScoredPairs]:
    """What each model says of the pairs, and the base's log-probabilities beside it."""
    size = 2 * reward_section(config).microbatch_size
    scores = {name: torch.zeros(2, len(pairs)) for name in names}
    logprobs = torch.zeros(2, len(pairs))
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].chosen)  # pairs of one prompt side by side
    with bar("pairs", len(pairs), visible=config.logging.progress) as progress:
        for start in range(0, len(order), size * BATCHES):
            rows = order[start : start + size * BATCHES]
            part = [pairs[row] for row in rows]
            for name in names:
                scores[name][:, rows] = torch.stack(score_pairs(RewardModel(backbone, name), part, size)).cpu()
            texts = [pair.chosen for pair in part] + [pair.rejected for pair in part]
            starts = 2 * [pair.prompt_length for pair in part]
            logprobs[:, rows] = mean_logprobs(backbone, None, texts, starts, batch_size=size).view(2, -1).cpu()
            if backbone.lower is not None:
                backbone.lower.forget()  # none of these comes again
            progress.advance(len(rows))
    base = logprobs.double().numpy()
    return {
        name: scored_pairs(scores[name][0], scores[name][1], pairs, by, score_scale(run_dir, name), logprobs=base)
        for name in names
    }


def score_scale(run_dir: RunDir, name: str) -> float:
    """Logits per unit of score: the deviation that the reward stage divided scores by."""
    role = json.loads((run_dir.artifact("reward", name) / "role.json").read_text(encoding="utf-8"))
    return float(role["score_std"])


def _some_of_each_length(pairs: Pairs) -> list[list[int]]:
    """A few sequences from the shortest to the longest, which pad each other the most."""
    ordered = sorted((sequence for pair in pairs for sequence in (pair.chosen, pair.rejected)), key=len)
    return [ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, min(COMPARED, len(ordered)))]


def _agreements(scored: dict[str, ScoredPairs], adapter: str) -> dict[str, float]:
    return {
        f"agreement.{other}.{key}": value
        for other in scored
        if other != adapter
        for key, value in agreement(scored[adapter].differences, scored[other].differences).items()
    }


def _hardest(pairs: Pairs, scored: ScoredPairs) -> list[dict[str, Any]]:
    """The pairs that were ordered wrong by the most, to read; scores in deviations."""
    return [
        {
            "where": pairs[row].row.where,
            "subset": scored.subsets[row],
            "prompt": prompt_text(pairs[row].row.prompt),
            "chosen": pairs[row].row.chosen,
            "rejected": pairs[row].row.rejected,
            "chosen_score": round(float(scored.chosen[row]), 4),
            "rejected_score": round(float(scored.rejected[row]), 4),
        }
        for row in hardest(scored.differences, SHOWN)
    ]
