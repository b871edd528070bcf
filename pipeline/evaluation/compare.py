"""Blind comparison of systems on the same prompts: every system answers, a judge looks at two answers at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipeline.evaluation.judges.protocol import Answer, Judge, Scorer, Verdict
from pipeline.evaluation.length_control import LengthControlled, length_controlled
from pipeline.evaluation.statistics import WinRate, adjusted, win_rate
from pipeline.evaluation.text import distinct, overused

Answers = Sequence[Sequence[Answer]]  # by prompt, the samples of one system


def pick_best(candidates: Answers, scorer: Scorer) -> list[Answer]:
    """Best-of-n: the candidate of each prompt that `scorer` scores highest."""
    flat = list(chain.from_iterable(candidates))
    scores = iter(scorer.score(flat))
    return [max(prompt, key=lambda _, s=scores: next(s)) for prompt in candidates]  # type: ignore[misc]


def ask(judge: Judge, first: Answers, second: Answers) -> list[list[Verdict]]:
    """Verdicts by prompt: the first system's n-th sample against the other's n-th."""
    pairs = [list(zip(a, b, strict=True)) for a, b in zip(first, second, strict=True)]
    verdicts = iter(judge.compare(list(chain.from_iterable(pairs))))
    return [[next(verdicts) for _ in prompt] for prompt in pairs]


@dataclass(frozen=True)
class Comparison:
    """A system against another: the win rate, the same at equal length, and the p-value for one of so many pairs."""

    rate: WinRate
    controlled: LengthControlled
    p_holm: float

    def figures(self) -> dict[str, float | int]:
        """For result.json, under suffixes."""
        return self.rate.figures() | {"_p_holm": self.p_holm} | self.controlled.figures()


def judged(judge: Judge, first: Answers, second: Answers) -> tuple[list[list[float]], list[list[float]]]:
    """By prompt, the outcomes that there are, and by how many characters the first system's answer is longer."""
    outcomes, longer = [], []
    for verdicts, ours, theirs in zip(ask(judge, first, second), first, second, strict=True):
        rows = [
            (verdict.outcome, len(one.text) - len(other.text))
            for verdict, one, other in zip(verdicts, ours, theirs, strict=True)
            if verdict.outcome is not None
        ]
        if rows:
            outcomes.append([outcome for outcome, _ in rows])
            longer.append([float(by) for _, by in rows])
    return outcomes, longer


def compare(
    judge: Judge, answers: Mapping[str, Answers], pairs: Sequence[tuple[str, str]], *, resamples: int, seed: int
) -> dict[str, Comparison]:
    """`a` against `b` for each pair of systems that are there, under the key "a_vs_b".

    A comparison without a verdict counts for nobody; a pair without any is left out. Lengths are in characters;
    `resamples` and `seed` are those of the bootstrap behind the interval at equal length.
    """
    outcomes, controlled = {}, {}
    for a, b in pairs:
        if a in answers and b in answers:
            found, longer = judged(judge, answers[a], answers[b])
            if not found:
                continue
            outcomes[f"{a}_vs_{b}"] = found
            controlled[f"{a}_vs_{b}"] = length_controlled(found, longer, resamples=resamples, seed=seed)
    p = adjusted(outcomes)
    return {name: Comparison(win_rate(found), controlled[name], p[name]) for name, found in outcomes.items()}


def describe(answers: Mapping[str, Answers], demonstrations: Sequence[str]) -> dict[str, Any]:
    """Mean tokens, EOS rate, distinct-1/2 of each system, and phrases it over-uses against the demonstrations."""
    figures: dict[str, Any] = {}
    for name, prompts in answers.items():
        rows = list(chain.from_iterable(prompts))
        texts = [answer.text for answer in rows]
        figures |= {
            f"mean_tokens.{name}": sum(len(answer.ids) for answer in rows) / len(rows),
            f"eos_rate.{name}": sum(answer.stopped for answer in rows) / len(rows),
            f"distinct_1.{name}": distinct(texts, 1),
            f"distinct_2.{name}": distinct(texts, 2),
            f"overused.{name}": overused(texts, demonstrations),
        }
    return figures
