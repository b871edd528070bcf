"""What is judged, what a judge says, and how scores become verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.data.schema import Message


@dataclass(frozen=True)
class Answer:
    """One answer to one prompt, as text and as the tokens that were sampled.

    Attributes:
        prompt: the conversation that was answered; the last turn is the user's.
        text: the answer.
        prompt_ids, ids: both as tokens; the answer's end with the end of turn when it ended by itself.
        stopped: whether it did, or was cut at the length limit.
    """

    prompt: tuple[Message, ...]
    text: str
    prompt_ids: list[int]
    ids: list[int]
    stopped: bool


@dataclass(frozen=True)
class Verdict:
    """What a judge says of two answers to one prompt.

    Attributes:
        outcome: 1 = the first is better, 0 = the second, ½ = neither; None = no verdict could be made out.
        orders: the same where the first was shown first, and where it was shown second, each None when no verdict could
            be made out; None as a whole for judges that look at one answer at a time and so know no order.
    """

    outcome: float | None
    orders: tuple[float | None, float | None] | None = None


class Judge(Protocol):
    """Anything that can order answers to the same prompt."""

    name: str

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        """One verdict per pair; both answers of a pair are to the same prompt."""
        ...


class Scorer(Protocol):
    """Anything that says how good an answer is by itself; only the order within a prompt matters."""

    name: str

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """One score per answer; equal answers to one prompt score exactly the same."""
        ...


class ByScore:
    """A judge that prefers the answer that a scorer scores higher; equal scores are a tie."""

    def __init__(self, scorer: Scorer) -> None:
        self.name, self.scorer = scorer.name, scorer

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        first, second = (self.scorer.score([pair[side] for pair in pairs]) for side in (0, 1))
        return [Verdict(outcome(a, b)) for a, b in zip(first, second, strict=True)]


def outcome(first: float, second: float) -> float:
    """1 = the first score is higher, ½ = equal, 0 = lower."""
    return 1.0 if first > second else 0.5 if first == second else 0.0
