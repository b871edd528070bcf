"""Answers side by side: an even choice, not the best ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.differences import Piece, differences
from pipeline.report.load import Rows, Run
from pipeline.report.wording import number, percent, system_name

SHOWN = 40  # before "show the others"
MOST_TEXT = 500_000  # characters of all samples together; the page stays below 1.5 MB
LONGEST = 4_000  # characters of one text


@dataclass(frozen=True)
class Answer:
    """One system's answer to a prompt, in pieces: those that differ are marked when the reader asks for it."""

    system: str
    name: str
    pieces: list[Piece]
    tokens: int
    stopped: bool
    judge: str
    winner: bool


@dataclass(frozen=True)
class Sample:
    """One prompt with everyone's answers. `result` is the policy's, against SFT: wins, loses or ties.

    `order` (the judge's margin) and `longer` (tokens) are the policy's less SFT's, to sort by; None: one is missing.
    """

    prompt: str
    category: str
    result: str
    margin: str
    answers: list[Answer]
    order: float | None = None
    longer: int | None = None

    @property
    def cut(self) -> list[str]:
        """Systems whose answers were cut off at the length limit."""
        return [answer.system for answer in self.answers if not answer.stopped]


@dataclass(frozen=True)
class Gallery:
    """The samples of the evaluation: those shown at once, the others, and how many the file has.

    `cut` names the systems of which some answer was cut off; `pairs`: policy's and SFT's answers are both there.
    """

    first: list[Sample]
    others: list[Sample]
    total: int
    categories: list[str]
    cut: dict[str, str]
    pairs: bool
    longer_wins: str


@dataclass(frozen=True)
class Step:
    """Samples of one step of training."""

    step: int
    rows: list[dict[str, str]]


def spread(items: Sequence[Any], wanted: int) -> list[int]:
    """`wanted` indices at even distances, both ends included."""
    if wanted >= len(items):
        return list(range(len(items)))
    if wanted <= 1:
        return [len(items) // 2][:wanted]
    return [round(i * (len(items) - 1) / (wanted - 1)) for i in range(wanted)]


def gallery(run: Run) -> Gallery | None:
    """The evaluation's samples in the order of the judge's margin between policy and SFT, the policy's wins first."""
    rows = [row for row in run["evaluate"].samples if isinstance(row.get("answers"), dict)]
    if not run["evaluate"].result or not rows:
        return None
    rows.sort(key=lambda row: -(_margin(row) or 0.0))
    size = sum(_size(row) for row in rows)
    kept = [rows[i] for i in spread(rows, int(len(rows) * min(1.0, MOST_TEXT / max(1, size))))]
    chosen = set(spread(kept, SHOWN))
    best_of = run["evaluate"].metrics.get("best_of")
    made = [_sample(row, best_of) for row in kept]
    return Gallery(
        first=[sample for i, sample in enumerate(made) if i in chosen],
        others=[sample for i, sample in enumerate(made) if i not in chosen],
        total=len(rows),
        categories=sorted({sample.category for sample in made if sample.category}),
        cut={a.system: a.name for sample in made for a in sample.answers if not a.stopped},
        pairs=any(sample.longer is not None for sample in made),
        longer_wins=_longer_wins(rows),
    )


def _size(row: dict[str, Any]) -> int:
    texts = [row.get("prompt"), *(answer.get("text") for answer in row["answers"].values())]
    return sum(min(len(str(text)), LONGEST) + 150 for text in texts)


def _margin(row: dict[str, Any]) -> float | None:
    return _difference(row, "judge")


def _difference(row: dict[str, Any], figure: str) -> Any:
    """The policy's figure less SFT's, None where one is missing."""
    pair = [row["answers"].get(system, {}).get(figure) for system in ("policy", "sft")]
    return None if None in pair else pair[0] - pair[1]


def _sample(row: dict[str, Any], best_of: int | None) -> Sample:
    margin, answers = _margin(row), row["answers"]
    result = "" if margin is None else "wins" if margin > 0 else "loses" if margin < 0 else "ties"
    judged = {name: answer["judge"] for name, answer in answers.items() if answer.get("judge") is not None}
    top = max(judged.values(), default=None)
    texts = {name: [Piece(shortened(answer.get("text", "")))] for name, answer in answers.items()}
    if {"sft", "policy"} <= texts.keys():
        texts["sft"], texts["policy"] = differences(texts["sft"][0].text, texts["policy"][0].text)
    shown = [
        Answer(
            system=name,
            name=system_name(name, best_of),
            pieces=texts[name],
            tokens=answer.get("tokens", 0),
            stopped=bool(answer.get("stopped")),
            judge=number(answer.get("judge")),
            winner=name in judged and judged[name] == top,
        )
        for name, answer in answers.items()
    ]
    prompt, category = shortened(row.get("prompt", "")), str(row.get("category") or "")
    return Sample(prompt, category, result, _signed(margin), shown, margin, _difference(row, "tokens"))


def _signed(margin: float | None) -> str:
    return number(margin) if margin is None or margin <= 0 else f"+{number(margin)}"


def shortened(text: Any) -> str:
    """As text, at most `LONGEST` characters of it."""
    text = str(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … [{len(text) - LONGEST} more characters]"


def _longer_wins(rows: Rows) -> str:
    """How often the longer of policy's and SFT's answers won: far from one half, length decides. "" when unknown."""
    won = []
    for row in rows:
        margin, answers = _margin(row), row["answers"]
        if margin:
            more = answers["policy"].get("tokens", 0) - answers["sft"].get("tokens", 0)
            if more:
                won.append((more > 0) == (margin > 0))
    if not won:
        return ""
    return f"The longer answer won {percent(sum(won) / len(won))} of {len(won)} comparisons of unequal length."


def training_steps(run: Run) -> list[Step]:
    """The training samples, by step."""
    steps: dict[int, list[dict[str, str]]] = {}
    for row in run["policy"].samples:
        shown = {
            "prompt": shortened(row.get("prompt", "")),
            "completion": shortened(row.get("completion", "")),
            "score": number(row.get("score")),
            "kl": number(row.get("kl"), 1),
            "end": "" if row.get("stopped", True) else "cut off",
        }
        steps.setdefault(int(row.get("step", 0)), []).append(shown)
    numbers = sorted(steps)
    size = sum(len(row["prompt"]) + len(row["completion"]) + 250 for rows in steps.values() for row in rows)
    wanted = max(1, int(len(numbers) * min(1.0, MOST_TEXT / 2 / max(1, size))))
    return [Step(numbers[i], steps[numbers[i]]) for i in spread(numbers, wanted)]
