"""What is judged, what a judge says, and how scores become verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.data.schema import Message


class JudgeError(ValueError):
    """A judge that can't be asked, or can't answer as it should; the message says why and what to do."""


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
        cost: what it was charged when it was asked for; None = nothing, or nobody said what.
    """

    outcome: float | None
    orders: tuple[float | None, float | None] | None = None
    cost: float | None = None


def both_orders(first: float | None, second: float | None, cost: float | None = None) -> Verdict:
    """One verdict of two, both as seen from the pair's first answer: where the orders disagree it is a tie, and where
    one can't be made out there is none."""
    outcome = None if first is None or second is None else first if first == second else 0.5
    return Verdict(outcome, (first, second), cost)


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
        scores = self.scorer.score([answer for pair in pairs for answer in pair])
        return [Verdict(outcome(a, b)) for a, b in zip(scores[::2], scores[1::2], strict=True)]


def outcome(first: float, second: float) -> float:
    """1 = the first score is higher, ½ = equal, 0 = lower."""
    return 1.0 if first > second else 0.5 if first == second else 0.0
