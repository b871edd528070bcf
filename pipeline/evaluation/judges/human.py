"""People as a judge: what they said of two answers, looked up by the prompt and both texts."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.schema import prompt_text
from pipeline.evaluation.judges.protocol import Answer, JudgeError, Verdict

FILE = "preferences.labels.jsonl"  # in a run's collect folder, as `align collect export` writes it
OUTCOMES = {"a": 1.0, "tie": 0.5, "both_bad": 0.5, "b": 0.0}
Texts = tuple[str, str, str]  # prompt and both answers


@dataclass
class Compared:
    """One comparison as people made it.

    Attributes:
        sources: who wrote the two answers.
        votes: 1 = the first answer is better, 0 = the second, ½ = neither, by person.
        settled: the adjudicator's; it stands for all others.
    """

    sources: frozenset[str]
    votes: dict[str, float] = field(default_factory=dict)
    settled: float | None = None

    @property
    def outcome(self) -> float | None:
        """Mean preference for the first answer; None where all skipped."""
        if self.settled is not None:
            return self.settled
        return sum(self.votes.values()) / len(self.votes) if self.votes else None


class People:
    """What people said, as `align collect export` writes it.

    Args:
        path: the file of labels, or the folder that holds it under its default name.

    Raises:
        JudgeError: there is no such file, or it holds no labels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / FILE if path.is_dir() else path
        self.compared: dict[Texts, Compared] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            hint = "`align collect export RUN` writes what people have said"
            raise JudgeError(f"no labels at {self.path} ({error.strerror}): {hint}") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(line, f"{self.path}:{number}")

    def _take(self, line: str, where: str) -> None:
        try:
            row = json.loads(line)
            texts, sources = _texts(prompt_text(row["prompt"]), row["a"], row["b"]), (row["a_source"], row["b_source"])
            outcome, person = OUTCOMES.get(row["verdict"]), row["annotator"]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise JudgeError(
                f"{where}: no label with prompt, a, b, a_source, b_source, verdict and annotator; give the file "
                "….labels.jsonl that `align collect export` writes beside the pairs"
            ) from None
        if row.get("expected") is not None or outcome is None:
            return
        if _turned(texts) in self.compared:
            texts, outcome = _turned(texts), 1 - outcome
        found = self.compared.setdefault(texts, Compared(frozenset(sources)))
        if row.get("settles"):
            found.settled = outcome
        else:
            found.votes[person] = outcome

    @property
    def annotators(self) -> int:
        """How many people there are, the adjudicator aside."""
        return len({person for one in self.compared.values() for person in one.votes})

    def outcome(self, first: Answer, second: Answer) -> float | None:
        """Mean preference for the first of two answers; None where nobody compared these very texts."""
        texts = _of(first, second)
        if texts in self.compared:
            return self.compared[texts].outcome
        found = self.compared.get(_turned(texts))
        return None if found is None or found.outcome is None else 1 - found.outcome

    def gone(self, pairs: Iterable[tuple[Answer, Answer]], sources: frozenset[str]) -> int:
        """Comparisons of answers from these two sources that aren't among `pairs` any more, in either order."""
        there = {texts for one, other in pairs for texts in (_of(one, other), _of(other, one))}
        return sum(one.sources == sources and texts not in there for texts, one in self.compared.items())


class HumanJudge:
    """Says what people said of a pair: their mean preference, or the adjudicator's word. No verdict on other pairs, or
    where nobody has said anything (None)."""

    def __init__(self, name: str, people: People | None) -> None:
        self.name, self._people = name, people

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        people = self._people
        return [Verdict(None if people is None else people.outcome(first, second)) for first, second in pairs]


def _of(first: Answer, second: Answer) -> Texts:
    return _texts(prompt_text(first.prompt), first.text, second.text)


def _texts(*texts: Any) -> Texts:
    prompt, a, b = (text.strip() for text in texts)
    return prompt, a, b


def _turned(texts: Texts) -> Texts:
    prompt, a, b = texts
    return prompt, b, a
