"""SFT's answers to prompts of a data file, and what the best of n of them is worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.config import Config
from pipeline.data.schema import Prompt
from pipeline.evaluation import overoptimisation
from pipeline.evaluation.best_of_n import best_of_n, best_of_n_kl
from pipeline.evaluation.judges.reward import RewardModelScorer
from pipeline.evaluation.reward_card import CardError
from pipeline.lm.backbone import Backbone
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.stages.answering import Asked, sample
from pipeline.stages.inputs import EncodedPair

PROMPTS = 32  # that are answered


def curves(
    config: Config, backbone: Backbone, pairs: Sequence[EncodedPair], names: Sequence[str], count: int
) -> dict[str, Any]:
    """For n = 1…count: the mean score of the best of n SFT answers, chosen by the first model, told by each model.

    Means are over prompts, with their standard errors; beside them n's KL from SFT and the fitted curve's score.

    Raises:
        CardError: fewer than two prompts are short enough to be answered.
    """
    asked = prompts(config, pairs)
    scores = _scores(config, backbone, asked, names, count)
    sizes = range(1, count + 1)
    kl = np.array([best_of_n_kl(n) for n in sizes])
    rows: list[dict[str, float]] = [{"n": n, "kl": best_of_n_kl(n)} for n in sizes]
    found: dict[str, Any] = {"best_of_n": rows}
    for name, values in scores.items():
        best = best_of_n(scores[names[0]], values, sizes)  # [P,N]
        fitted = overoptimisation.fit(kl, best, "best_of_n")
        columns = {name: best.mean(0), f"{name}_se": best.std(0, ddof=1) / len(asked) ** 0.5}
        if fitted is not None:
            columns[f"{name}_fitted"] = fitted.at(kl)
        for key, column in columns.items():
            for row, value in zip(rows, column.tolist(), strict=True):
                row[key] = value
        figures = overoptimisation.figures(fitted)
        found |= {f"best_of_n_curve.{name}.{key}": value for key, value in figures.items()}
    return found


def prompts(config: Config, pairs: Sequence[EncodedPair]) -> Asked:
    """Prompts of the pairs, at even distances over them all.

    Raises:
        CardError: fewer than two are short enough.
    """
    limit = config.policy.max_prompt_length
    short = [pair for pair in {pair.row.key: pair for pair in pairs}.values() if pair.prompt_length <= limit]
    if len(short) < 2:
        raise CardError(f"best of n needs two prompts of at most policy.max_prompt_length = {limit} tokens")
    return [
        (Prompt(pair.row.prompt, pair.row.where, pair.row.meta), pair.chosen[: pair.prompt_length])
        for pair in short[:: -(-len(short) // PROMPTS)]
    ]


def _scores(
    config: Config, backbone: Backbone, asked: Asked, names: Sequence[str], count: int
) -> dict[str, np.ndarray]:
    """What each model says [P,N] of `count` SFT answers to each prompt."""
    generator = torch.Generator(backbone.device).manual_seed(config.seed)
    visible = config.logging.progress
    with bar("answers", len(asked) * count, visible=visible) as progress:
        answers, _ = sample(backbone, "sft", asked, count, config, generator, progress)
    scores = {}
    with bar("their scores", len(asked) * len(names), visible=visible) as progress:
        for name in names:
            scorer = RewardModelScorer(RewardModel(backbone, name), batch_size=config.evaluate.batch_size // 2 or 1)
            rows = []
            for group in answers:
                rows.append(scorer.score(group))
                progress.advance()
            scores[name] = np.array(rows)
    return scores
