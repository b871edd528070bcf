"""What the functions of `policy.rewards` give everybody's held-out answers: a right answer needs no other judge."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.intervals import mean_interval
from pipeline.evaluation.judges.protocol import Answer
from pipeline.stages.answering import Asked, Groups
from pipeline.stages.terms import function_terms

JUDGE = "rewards"  # what decides where a run has no reward model
Values = dict[str, list[list[float]]]  # by function: of each prompt's answers


def rewarded(config: Config, asked: Asked, groups: Groups) -> Values:
    """One system's answers. None where the evaluation doesn't want to know.

    Raises:
        RewardError: a function fails or gives no number; names the row.
    """
    terms = function_terms(config) if config.evaluate.rewarded else {}
    both = list(zip(asked, groups, strict=True))
    return {
        name: [term.values([prompt] * len(group), [answer.text for answer in group]) for (prompt, _), group in both]
        for name, term in terms.items()
    }


def figures(found: Mapping[str, Values]) -> dict[str, float]:
    """Means under rewarded.<function>.<system>, with a 95 % interval over prompts where all values are in [0, 1]."""
    told: dict[str, float] = {}
    for system, values in found.items():
        for name, prompts in values.items():
            means = np.array([np.mean(one) for one in prompts])
            key = f"rewarded.{name}.{system}"
            told[key] = float(means.mean())
            if means.min() >= 0 and means.max() <= 1:
                low, high = mean_interval(means)
                told |= {f"{key}_low": float(low), f"{key}_high": float(high)}
    return told


class PaidScorer:
    """Σ weight · function: what the policy was paid for, as judge where a run has no reward model.

    A prompt's row is found by its tokens.
    """

    def __init__(self, config: Config, asked: Asked) -> None:
        self.name = JUDGE
        self._terms = function_terms(config)
        self._weights = {name: config.policy.rewards[name].weight for name in self._terms}
        self._prompts = {tuple(ids): prompt for prompt, ids in asked}
        self.known: dict[tuple[int, ...], float] = {}  # a text is judged once

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Scores. Raises RewardError, naming the row, where a function fails or gives no number."""
        return [self._score(answer) for answer in answers]

    def _score(self, answer: Answer) -> float:
        key = (*answer.prompt_ids, *answer.ids)
        if key not in self.known:
            prompt = self._prompts[tuple(answer.prompt_ids)]
            values = {name: term.values([prompt], [answer.text])[0] for name, term in self._terms.items()}
            self.known[key] = sum(self._weights[name] * value for name, value in values.items())
        return self.known[key]
