"""The reward model: an adapter with a scalar head, read at the last real token."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline import processes
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import sequences
from pipeline.rl.rollout import Rollout


class RewardModel:
    """Scores prompt + completion sequences under one adapter of the backbone."""

    def __init__(self, backbone: Backbone, adapter: str = "reward") -> None:
        if adapter not in backbone.heads:
            raise ValueError(f"adapter {adapter!r} has no scalar head; load a reward adapter's folder")
        self.backbone, self.adapter = backbone, adapter

    def scores(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Scores [b] of token sequences, with gradient.

        The score is the head's value at the last real token, found by length, never by `token == pad`.
        """
        if any(len(sequence) == 0 for sequence in sequences):
            raise ValueError("sequences must have at least one token; got an empty one")
        states = self.backbone.states(self.adapter, sequences)
        last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=self.backbone.device)
        return self.backbone.score(self.adapter, states.at(torch.arange(len(last), device=last.device), last))

    @torch.no_grad()
    def standardise(self, mean: float, std: float) -> None:
        """Fold r ← (r − mean)/std into the head, so that every reader of the adapter sees the same scale."""
        head: Any = self.backbone.heads[self.adapter]
        head.bias.sub_(mean)
        head.weight.div_(std)
        head.bias.div_(std)

    @torch.no_grad()
    def score_sequences(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        batch_size: int = 16,
        told: Callable[[int], None] = lambda scored: None,
    ) -> Tensor:
        """Scores [B] without gradient; the order is the input's. `told` hears how many each batch had.

        A batch is of sequences that begin alike, or where nothing can be shared, of sequences of like length.
        """
        packs = self.backbone.packs
        order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]) if packs else [-len(sequences[i])])
        scores = torch.zeros(len(sequences), device=self.backbone.device)
        for rows, counts in processes.batches(order, batch_size):
            found = self.scores([sequences[i] for i in rows])
            if counts:
                scores[rows] = found
                told(len(rows) * processes.world())  # the others are as far
        processes.add(scores)
        return scores

    def score(self, rollout: Rollout, *, batch_size: int = 16) -> Tensor:
        """Scores [B] of a rollout's completions, without gradient."""
        return self.score_sequences(sequences(rollout.context, rollout.actions), batch_size=batch_size)
