"""Who says which of two answers is better. A judge turns answers into scores; the higher score wins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.lm.reward import RewardModel


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt, as tokens and as text."""

    prompt_ids: list[int]
    ids: list[int]
    text: str
    stopped: bool


class Judge(Protocol):
    """Anything that can order answers to the same prompt."""

    name: str

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """One score per answer; only the order within a prompt matters."""
        ...


class RewardModelJudge:
    """A reward model as judge. To be honest it must have been trained on other pairs than the policy's."""

    def __init__(self, model: RewardModel, *, batch_size: int = 16) -> None:
        self.name, self._model, self._batch_size = model.adapter, model, batch_size
        self.known: dict[tuple[int, ...], float] = {}  # a text is scored once: equal answers are exactly equal

    def score(self, answers: Sequence[Answer]) -> list[float]:
        keys = [(*answer.prompt_ids, *answer.ids) for answer in answers]
        new = list(dict.fromkeys(key for key in keys if key not in self.known))
        scores = self._model.score_sequences(new, batch_size=self._batch_size).tolist()
        self.known.update(zip(new, scores, strict=True))
        return [self.known[key] for key in keys]


def outcomes(first: Sequence[float], second: Sequence[float]) -> list[list[float]]:
    """Outcome of the first side per prompt: 1 = scored higher, ½ = equal, 0 = lower."""
    return [[1.0 if a > b else 0.5 if a == b else 0.0] for a, b in zip(first, second, strict=True)]
