"""Pairs and labels for tests."""

from collections.abc import Sequence

from pipeline.collect.records import Answer, Label, Pair, Side, Verdict


def pair(number: int, expected: Side | None = None) -> Pair:
    """One of many: a question, and the answers of SFT and policy."""
    prompt = ({"role": "user", "content": f"Question {number}?"},)
    id = f"{'check' if expected else 'pair'}-{number}"
    return Pair(id, prompt, Answer(f"SFT says {number}.", "sft"), Answer(f"Policy says {number}.", "policy"), expected)


def pairs(count: int) -> list[Pair]:
    return [pair(number) for number in range(count)]


def label(of: Pair, annotator: str, verdict: Verdict, at: int = 0, reasons: Sequence[str] = ()) -> Label:
    """A verdict at so many seconds after midnight."""
    time = f"2026-01-01T00:{at // 60:02}:{at % 60:02}.000+00:00"
    return Label(of, annotator, verdict, first="a", seconds=3.0, at=time, reasons=tuple(reasons))
