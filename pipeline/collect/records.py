"""What is asked and what was answered: a pair of answers to one conversation, and one person's verdict on it."""

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.data.schema import Message

Side = Literal["a", "b"]
Verdict = Literal["a", "b", "tie", "both_bad", "skip"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
STRENGTHS = (1, 2, 3)  # slightly, clearly, by far: becomes the pair's margin


@dataclass(frozen=True)
class Answer:
    """One text, and who wrote it: "sft", "policy", a generator's name. Annotators never see the source."""

    text: str
    source: str


@dataclass(frozen=True)
class Pair:
    """Two answers to one conversation. `expected` names the better one where the pair is planted to check attention."""

    id: str
    prompt: tuple[Message, ...]
    a: Answer
    b: Answer
    expected: Side | None = None


@dataclass(frozen=True)
class Label:
    """One annotator's latest word on one pair.

    `first` is the answer that stood first (left, or above) in that view; `strength` is one of STRENGTHS, or None where
    not given or where no side won; `seconds` is the time from showing to answering; `at` is when, in ISO 8601, UTC.
    """

    pair: Pair
    annotator: str
    verdict: Verdict
    first: Side
    seconds: float
    at: str
    strength: int | None = None
    reasons: tuple[str, ...] = ()
