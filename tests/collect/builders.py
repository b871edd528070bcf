"""Pairs and labels for tests."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.collect.records import Answer, Label, Pair, Side, Verdict
from pipeline.rundir import RunDir


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


def finished_run(
    path: Path, *, prompts: int, equal: int = 0, samples: int = 1, messages: list[dict[str, str]] | None = None
) -> Path:
    """A run folder whose evaluation is finished; SFT and policy answer the first `equal` prompts alike."""
    out = RunDir(path).open_stage("evaluate", "made")
    for number in range(prompts):
        texts = {name: f"{name if number >= equal else 'both'} on {number}" for name in ("sft", "policy")}
        others = {"others": [f"policy on {number}, {more}" for more in range(1, samples)]} if samples > 1 else {}
        answers = {name: {"text": text, **others} for name, text in texts.items()}
        turns = {"messages": messages} if messages else {}
        out.sample([{"prompt": f"Prompt {number}?", **turns, "answers": answers}])
    out.finish({"samples": samples})
    return path
