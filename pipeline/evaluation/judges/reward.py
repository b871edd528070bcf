"""A reward model as judge."""

from collections.abc import Sequence

from pipeline.evaluation.judges.protocol import Answer
from pipeline.lm.reward import RewardModel


class RewardModelScorer:
    """A reward model's scores. To be honest it must have been trained on other pairs than the policy's."""

    def __init__(self, model: RewardModel, *, batch_size: int = 16) -> None:
        self.name, self._model, self._batch_size = model.adapter, model, batch_size
        self.known: dict[tuple[int, ...], float] = {}  # a text is scored once: equal answers are exactly equal

    def score(self, answers: Sequence[Answer]) -> list[float]:
        keys = [(*answer.prompt_ids, *answer.ids) for answer in answers]
        new = list(dict.fromkeys(key for key in keys if key not in self.known))
        scores = self._model.score_sequences(new, batch_size=self._batch_size).tolist()
        self.known.update(zip(new, scores, strict=True))
        return [self.known[key] for key in keys]
