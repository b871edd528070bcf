"""Blind comparison of answer sets: one answer per prompt and system, judged pair by pair."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.judges import Answer, Judge, outcomes
from pipeline.evaluation.statistics import WinRate, win_rate
from pipeline.evaluation.text import distinct, overused


def pick_best(candidates: Sequence[Sequence[Answer]], judge: Judge) -> list[Answer]:
    """Best-of-n: the candidate of each prompt that `judge` scores highest."""
    flat = [answer for prompt in candidates for answer in prompt]
    scores = iter(judge.score(flat))
    return [max(prompt, key=lambda _, s=scores: next(s)) for prompt in candidates]  # type: ignore[misc]


def compare(
    scores: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]], *, resamples: int, seed: int
) -> dict[str, WinRate]:
    """Win rate of `a` over `b` for each pair, under the key "a_vs_b"."""
    return {
        f"{a}_vs_{b}": win_rate(outcomes(scores[a], scores[b]), resamples=resamples, seed=seed)
        for a, b in pairs
        if a in scores and b in scores
    }


def describe(answers: Mapping[str, Sequence[Answer]], demonstrations: Sequence[str]) -> dict[str, Any]:
    """Mean tokens, EOS rate, distinct-1/2 of each system, and phrases it over-uses against the demonstrations."""
    figures: dict[str, Any] = {}
    for name, rows in answers.items():
        texts = [answer.text for answer in rows]
        figures |= {
            f"mean_tokens.{name}": sum(len(answer.ids) for answer in rows) / len(rows),
            f"eos_rate.{name}": sum(answer.stopped for answer in rows) / len(rows),
            f"distinct_1.{name}": distinct(texts, 1),
            f"distinct_2.{name}": distinct(texts, 2),
            f"overused.{name}": overused(texts, demonstrations),
        }
    return figures
