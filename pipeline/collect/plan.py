"""How a sitting is set up, and how far its people are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.collect.records import Verdict


@dataclass(frozen=True)
class Plan:
    """How a sitting is set up.

    Attributes:
        annotators: who may answer.
        overlap: share of pairs that everybody is asked; the others are asked once.
        check_rate: how often, about, a planted pair is asked while there are any left.
        seed: decides the overlap, the order in a view, and when planted pairs come.
    """

    annotators: Sequence[str]
    overlap: float = 0.2
    check_rate: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """How far an annotator is: answers given, pairs left that may still be theirs, and the median seconds of the latest
    answers."""

    done: int
    left: int
    pace: float | None


@dataclass
class Person:
    """What one annotator has done."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)  # by pair
    seconds: list[float] = field(default_factory=list)
