"""Reward models as judges: one of this project's, several together, or a published sequence classifier."""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.judges.progress import Progress, quiet
from pipeline.evaluation.judges.protocol import Answer, Scorer
from pipeline.lm.classifier import Classifier
from pipeline.lm.reward import RewardModel


class RewardModelScorer:
    """A reward model's scores. To be honest it must have been trained on other pairs than the policy's."""

    def __init__(
        self, model: RewardModel, *, name: str | None = None, batch_size: int = 16, progress: Progress = quiet
    ) -> None:
        self.name, self._model = name or model.adapter, model
        self._batch_size, self._progress = batch_size, progress
        self.known: dict[tuple[int, ...], float] = {}  # a text is scored once: equal answers are exactly equal

    def score(self, answers: Sequence[Answer]) -> list[float]:
        keys = [(*answer.prompt_ids, *answer.ids) for answer in answers]
        new = list(dict.fromkeys(key for key in keys if key not in self.known))
        if new:
            with self._progress(f"judge {self.name}", len(new)) as bar:
                scores = self._model.score_sequences(new, batch_size=self._batch_size, told=bar.advance)
            self.known.update(zip(new, scores.tolist(), strict=True))
        return [self.known[key] for key in keys]


class RetokenisedScorer:
    """Scores of a reward model that stands on another base, so that texts are read by its own tokenizer."""

    def __init__(self, model: RewardModel, *, name: str, batch_size: int = 16, progress: Progress = quiet) -> None:
        self.name, self._chat = name, model.backbone.chat
        self._scorer = RewardModelScorer(model, name=name, batch_size=batch_size, progress=progress)

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return self._scorer.score([self._read(answer) for answer in answers])

    def _read(self, answer: Answer) -> Answer:
        ids = self._chat.completion_ids(answer.prompt, answer.text)
        if not answer.stopped:
            ids = ids[:-1]  # it was cut, and has no end of turn
        return Answer(answer.prompt, answer.text, self._chat.prompt_ids(answer.prompt), ids, answer.stopped)


class EnsembleScorer:
    """mean − penalty · σ over the members' scores, σ their deviation (population): what they disagree on counts less.

    Members must score on one scale, as this project's judges do (SFT's samples have mean 0, deviation 1). After the
    conservative ensembles of Coste et al. 2024, which subtract a multiple of the variance.
    """

    def __init__(self, name: str, members: Sequence[Scorer], *, penalty: float = 1.0) -> None:
        self.name, self._members, self._penalty = name, members, penalty

    def score(self, answers: Sequence[Answer]) -> list[float]:
        scores = np.array([member.score(answers) for member in self._members])  # [members,answers]
        return (scores.mean(0) - self._penalty * scores.std(0)).tolist()  # type: ignore[no-any-return]


class ClassifierScorer:
    """Scores of a published sequence classifier, each text as its own template writes it."""

    def __init__(self, name: str, classifier: Classifier, *, batch_size: int = 16, progress: Progress = quiet) -> None:
        self.name, self._classifier, self._batch_size, self._progress = name, classifier, batch_size, progress
        self._known: dict[tuple[int, ...], float] = {}

    def score(self, answers: Sequence[Answer]) -> list[float]:
        keys = [tuple(self._classifier.encode(answer.prompt, answer.text)) for answer in answers]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        with self._progress(f"judge {self.name}", len(new)) as bar:
            for batch in self._classifier.batches(new, self._batch_size):
                self._known.update(zip(batch, self._classifier.scores(batch), strict=True))
                bar.advance(len(batch))
        return [self._known[key] for key in keys]
