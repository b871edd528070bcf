"""Where annotators differ, and what the owner decided: a decision is a label by the adjudicator, and the last word."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.collect.records import Label, Pair, Side
from pipeline.collect.store import ADJUDICATOR


@dataclass(frozen=True)
class Dispute:
    """One pair on which verdicts differ, with all of them, and the decision where there is one."""

    pair: Pair
    labels: tuple[Label, ...]
    decision: Label | None = None

    @property
    def first(self) -> Side:
        """Which answer the owner sees first: as good as random, and the same at every look."""
        return "b" if hashlib.sha256(self.pair.id.encode()).digest()[0] % 2 else "a"


def disputes(labels: Iterable[Label]) -> list[Dispute]:
    """Pairs on which two annotators gave different verdicts, in the order of their first; skips are no verdicts, and
    planted pairs need no settling."""
    given: dict[str, list[Label]] = {}
    decided: dict[str, Label] = {}
    for label in labels:
        if label.annotator == ADJUDICATOR:
            decided[label.pair.id] = label
        elif label.verdict != "skip" and label.pair.expected is None:
            given.setdefault(label.pair.id, []).append(label)
    return [
        Dispute(found[0].pair, tuple(found), decided.get(id))
        for id, found in given.items()
        if len({label.verdict for label in found}) > 1
    ]
