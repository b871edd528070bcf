"""What the policies of several runs answer to the same prompts."""

from collections.abc import Sequence
from typing import Any

from pipeline.report.comparability import Entry
from pipeline.report.differences import Piece
from pipeline.report.samples import MOST_TEXT, SHOWN, Answer, Gallery, Sample, shortened, spread
from pipeline.report.wording import number


def shared(runs: Sequence[Entry], *, same_judge: bool) -> Gallery | None:
    """Prompts that all runs with samples have answered, at even distances in the first run's order.

    Args:
        same_judge: one judge gave all the scores, so the highest one may be called its choice.
    """
    answered = [(entry, _policy_answers(entry)) for entry in runs]
    answered = [(entry, rows) for entry, rows in answered if rows]
    if len(answered) < 2:
        return None
    first = answered[0][1]
    prompts = [prompt for prompt in first if all(prompt in rows for _, rows in answered)]
    size = sum(
        len(shortened(rows[prompt]["answer"].get("text", ""))) + 200 for prompt in prompts for _, rows in answered
    )
    kept = [prompts[i] for i in spread(prompts, min(SHOWN, int(len(prompts) * min(1.0, MOST_TEXT / max(1, size)))))]
    made = [_sample(prompt, answered, same_judge) for prompt in kept]
    return Gallery(
        first=made,
        others=[],
        total=len(prompts),
        categories=sorted({sample.category for sample in made if sample.category}),
        cut={a.system: a.name for sample in made for a in sample.answers if not a.stopped},
        pairs=False,
        longer_wins="",
    )


def _policy_answers(entry: Entry) -> dict[str, dict[str, Any]]:
    """The policy's answer by prompt, with the prompt's category; the first one where a prompt comes again."""
    found: dict[str, dict[str, Any]] = {}
    for row in entry.run["evaluate"].samples if entry.run["evaluate"].result else ():
        answers = row.get("answers")
        if isinstance(answers, dict) and "policy" in answers:
            found.setdefault(str(row.get("prompt", "")), {"answer": answers["policy"], "category": row.get("category")})
    return found


def _sample(prompt: str, answered: Sequence[tuple[Entry, dict[str, dict[str, Any]]]], same_judge: bool) -> Sample:
    scores = [rows[prompt]["answer"].get("judge") for _, rows in answered]
    best = max((score for score in scores if score is not None), default=None) if same_judge else None
    answers = [
        Answer(
            system=entry.color,
            name=entry.label,
            pieces=[Piece(shortened(rows[prompt]["answer"].get("text", "")))],
            tokens=rows[prompt]["answer"].get("tokens", 0),
            stopped=bool(rows[prompt]["answer"].get("stopped")),
            judge=number(score),
            winner=best is not None and score == best,
        )
        for (entry, rows), score in zip(answered, scores, strict=True)
    ]
    return Sample(shortened(prompt), str(answered[0][1][prompt]["category"] or ""), "", "", answers)
