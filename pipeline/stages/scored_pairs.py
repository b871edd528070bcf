"""What a reward model says of held-out pairs: accuracy, confidence, what length does, how steady a score is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ConfigError
from pipeline.evaluation.reward_card import Array, Lengths, ScoredPairs, accuracy, confidence, shapes, tempered
from pipeline.lm.reward import RewardModel
from pipeline.stages.inputs import EncodedPair

Pairs = Sequence[EncodedPair]
COMPARED = 8  # answers that are scored alone and beside others


@torch.no_grad()
def score_pairs(model: RewardModel, pairs: Pairs, batch_size: int) -> tuple[Tensor, Tensor]:
    """Scores of chosen and rejected, [n] each."""
    sequences = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    chosen, rejected = model.score_sequences(sequences, batch_size=batch_size).chunk(2)
    return chosen, rejected


def measure(model: RewardModel, pairs: Pairs, batch_size: int, *, scale: float = 1.0) -> dict[str, Any]:
    """Accuracy on held-out pairs, by kind of failure too, and how sure the model is: what its card begins with.

    `scale` is the deviation that scores were divided by: logits per unit of score.
    """
    if not pairs:
        raise ConfigError("reward.test and reward.validation keep no pairs apart, so no accuracy could be told")
    scored = scored_pairs(*score_pairs(model, pairs, 2 * batch_size), pairs, "failure", scale)
    kinds = sorted({kind for kind in scored.subsets if kind})
    return {
        **accuracy(scored.differences),
        **{f"accuracy_by_failure.{kind}": accuracy(scored.part(kind).differences)["accuracy"] for kind in kinds},
        **confidence(scored.differences),
        **tempered(scored),
        **shapes(scored),
    }


def scored_pairs(
    chosen: Tensor, rejected: Tensor, pairs: Pairs, by: str | None, scale: float, logprobs: Array | None = None
) -> ScoredPairs:
    """Pairs with their scores [n], and as subsets what their rows say in the column `by`."""
    columns = [None if by is None else pair.row.meta.get(by) for pair in pairs]
    return ScoredPairs(
        chosen.double().cpu().numpy(),
        rejected.double().cpu().numpy(),
        *lengths(pairs),
        prompts=[pair.row.key for pair in pairs],
        subsets=["" if value is None else _text(value) for value in columns],
        scale=scale,
        logprobs=logprobs,
    )


def _text(value: Any) -> str:
    """A column's value as text that can be written: JSON can spell half of a surrogate pair, UTF-8 can't."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def lengths(pairs: Pairs) -> tuple[Lengths, Lengths]:
    """Tokens of chosen and rejected, with the prompt that they share, [n] each."""
    return np.array([len(pair.chosen) for pair in pairs]), np.array([len(pair.rejected) for pair in pairs])


@torch.no_grad()
def batch_error(model: RewardModel, sequences: list[list[int]]) -> float:
    """How far a score moves, at most, between alone, packed with others in either order, and padded beside them."""
    last = [len(sequence) - 1 for sequence in sequences]
    hidden = model.backbone.hidden(model.adapter, model.backbone.pad(sequences))
    padded = model.backbone.score(model.adapter, hidden[range(len(last)), last])
    alone, packed = (model.score_sequences(sequences, batch_size=size) for size in (1, len(sequences)))
    turned = model.scores(sequences[::-1]).flip(0)
    return max((other - alone).abs().max().item() for other in (packed, padded, turned))
