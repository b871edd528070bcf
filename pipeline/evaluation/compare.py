"""Blind comparison of systems on the same prompts: every system answers, a judge looks at two answers at a time."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from pipeline.evaluation.judges.protocol import Answer, Judge, Scorer, Verdict
from pipeline.evaluation.judging import rate
from pipeline.evaluation.statistics import WinRate
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


def compare(
    judge: Judge, answers: Mapping[str, Answers], pairs: Sequence[tuple[str, str]], *, resamples: int, seed: int
) -> dict[str, WinRate]:
    """Win rate of `a` over `b` for each pair of systems that are there, under the key "a_vs_b".

    A comparison without a verdict counts for nobody; a pair without any is left out.
    """
    found = {
        f"{a}_vs_{b}": rate(ask(judge, answers[a], answers[b]), resamples=resamples, seed=seed)
        for a, b in pairs
        if a in answers and b in answers
    }
    return {pair: one for pair, one in found.items() if one is not None}


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
