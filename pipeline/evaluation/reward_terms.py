"""The terms of a reward: reward models and functions, each told by itself, weighted and summed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.schema import Prompt
from pipeline.evaluation.judges.protocol import Answer
from pipeline.evaluation.judges.reward import ClassifierScorer
from pipeline.lm.classifier import Classifier
from pipeline.lm.reward import RewardModel
from pipeline.rl.rollout import Rollout


class RewardError(ValueError):
    """A term of the reward that can't be had, or gives no number; the message names it and the row."""


@dataclass(frozen=True)
class Completed:
    """What is to be rewarded: B completions as tokens and as text, with the prompt of each."""

    rollout: Rollout
    prompts: Sequence[Prompt]
    texts: Sequence[str]


def completed(rollout: Rollout, prompts: Sequence[Prompt], texts: Sequence[str]) -> Completed:
    """A rollout whose rows b belong to prompt b // G, G = B / P."""
    size = len(texts) // len(prompts)
    return Completed(rollout, [prompt for prompt in prompts for _ in range(size)], texts)


class Term(Protocol):
    """Anything that says what completions are worth."""

    def __call__(self, done: Completed) -> Tensor:
        """[B], fp32, on the rollout's device."""
        ...


class ModelTerm:
    """A reward model on the shared base."""

    def __init__(self, model: RewardModel, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size

    def __call__(self, done: Completed) -> Tensor:
        return self._model.score(done.rollout, batch_size=self._batch_size)


class ClassifierTerm:
    """A published sequence classifier, which reads the texts. It remembers none: what a text was scored together with
    shows in its last digits, and a run that goes on must find the same."""

    def __init__(self, name: str, classifier: Classifier, batch_size: int) -> None:
        self._name, self._classifier, self._batch_size = name, classifier, batch_size

    def __call__(self, done: Completed) -> Tensor:
        scorer = ClassifierScorer(self._name, self._classifier, batch_size=self._batch_size)
        answers = [
            Answer(prompt.messages, text, [], [], stopped=True)
            for prompt, text in zip(done.prompts, done.texts, strict=True)
        ]
        return torch.tensor(scorer.score(answers), device=done.rollout.actions.device)


class FunctionTerm:
    """A function of (prompt, completion, row): the last user turn and the answer as texts, and all columns of the data
    row."""

    def __init__(self, where: str, function: Callable[..., Any]) -> None:
        self._where, self._function = where, function

    def __call__(self, done: Completed) -> Tensor:
        return torch.tensor(self.values(done.prompts, done.texts), device=done.rollout.actions.device)

    def values(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        """One value per completion. Raises RewardError, naming the row, where the function fails or gives no number."""
        return [self._value(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]

    def _value(self, prompt: Prompt, text: str) -> float:
        at = f"{self._where}, row {prompt.where}, completion {text[:80]!r}"
        try:
            value = self._function(prompt.messages[-1]["content"], text, prompt.row)
        except Exception as error:
            raise RewardError(f"{at}: {type(error).__name__}: {error}") from error
        if not isinstance(value, bool | int | float | np.bool | np.number) or not np.isfinite(value):
            raise RewardError(f"{at}: gave {value!r}, where a finite number is needed")
        return float(value)


class Terms:
    """score = Σ weight · (term − mean) / deviation.

    Mean and deviation are SFT's for reward models of elsewhere; the run's own has them in its head already, and
    functions count as they are: 0 and 1.

    Args:
        terms: by name.
        weights: of each.
        foreign: names of those whose scale is still to be found, by `calibrate`.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float], foreign: Sequence[str] = ()) -> None:
        self.terms, self.weights, self.foreign = terms, weights, foreign
        self.scales: dict[str, list[float]] = {}  # mean and deviation

    @property
    def calibrated(self) -> bool:
        """Whether everybody's scale is known."""
        return all(name in self.scales for name in self.foreign)

    def calibrate(self, done: Sequence[Completed]) -> None:
        """Take SFT's answers for the scale of the models of elsewhere."""
        for name in self.foreign:
            scores = torch.cat([self.terms[name](part) for part in done])
            self.scales[name] = [scores.mean().item(), max(scores.std(correction=0).item(), 1e-6)]

    def __call__(self, done: Completed) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum [B], and the mean of each term on its own scale as reward/NAME."""
        total = torch.zeros(len(done.texts), device=done.rollout.actions.device)
        figures = {}
        for name, term in self.terms.items():
            mean, deviation = self.scales.get(name, (0.0, 1.0))
            values = (term(done) - mean) / deviation
            figures[f"reward/{name}"] = values.mean().item()
            total = total + self.weights[name] * values
        return total, figures
