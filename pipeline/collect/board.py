"""Which pair is whose turn: what is open, what is on whose screen, what comes next. One at a time, in memory; the store
has the truth, and a new board made from it goes on where the last one stopped."""

import random
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from pipeline.collect.asking import Asking
from pipeline.collect.errors import CollectError
from pipeline.collect.leases import Leases
from pipeline.collect.plan import Person, Plan, Progress
from pipeline.collect.records import Label, Pair, Side, Verdict
from pipeline.collect.store import ADJUDICATOR, Store, View, now

LEASE = timedelta(minutes=15)  # how long a pair on somebody's screen is kept from others
REORDER_EVERY = 50  # labels between two askings of the strategy
OTHER: dict[Side, Side] = {"a": "b", "b": "a"}
RECENT = 20  # answers that tell the pace


Choice = Literal["first", "second", "tie", "both_bad", "skip"]  # as the page knows it: by place, not by source


class Refused(CollectError):
    """An answer that can't be taken: its view is unknown, somebody else's, or was answered otherwise."""


def verdict_of(choice: Choice, first: Side) -> Verdict:
    """What a choice by place says of the pair."""
    if choice == "first":
        return first
    return OTHER[first] if choice == "second" else choice


class Board:
    """Hands out pairs and takes answers.

    Args:
        store: where everything is kept.
        pairs: what may be asked, planted pairs (those with `expected`) among them.
        asking: the order.
        plan: who, how often, how many of several.
    """

    def __init__(self, store: Store, pairs: Iterable[Pair], asking: Asking, plan: Plan) -> None:
        self.store, self.plan, self._asking = store, plan, asking
        everything = list(pairs)
        store.add_pairs(everything)
        self.pairs = {pair.id: pair for pair in everything if pair.expected is None}
        self.checks = {pair.id: pair for pair in everything if pair.expected is not None}
        ids = sorted(self.pairs)
        random.Random(f"overlap {plan.seed}").shuffle(ids)
        self.shared = set(ids[: round(plan.overlap * len(ids))]) if len(plan.annotators) > 1 else set()
        self.reload()

    def reload(self) -> None:
        """Everything as the store has it."""
        self.people = {name: Person() for name in self.plan.annotators}
        self.given = dict.fromkeys(self.pairs, 0)  # answers that count, skips don't
        self.leases = Leases()
        self.open: dict[str, None] = {}  # pairs with too few answers, the next one first
        self.full: set[str] = set()  # those of them with enough answers once all screens are answered
        self.labels = {(label.pair.id, label.annotator): label for label in self.store.labels()}
        for label in self.labels.values():
            self._count(label, 1)
            if label.annotator in self.people:
                self.people[label.annotator].seconds.append(label.seconds)
        for view in self.store.views(since=_before(LEASE), answered=False):
            self.leases.take(view)
        self._reorder()

    def pair(self, id: str) -> Pair:
        """One of those that are asked, planted or not. Raises KeyError."""
        return self.pairs[id] if id in self.pairs else self.checks[id]

    # ---- asking ---------------------------------------------------------------------------------------------

    def next(self, annotator: str, tab: str) -> View | None:
        """What to show in a tab: what it showed already, else the next pair, recorded as a view; None = all done."""
        self._settle_places(self.leases.expire(_before(LEASE)))
        shown = self.leases.of_tab(annotator, tab)
        if shown is not None:
            return shown
        chosen = self._choose(annotator)
        return None if chosen is None else self._show(chosen, annotator, tab, "a" if secrets.randbelow(2) else "b")

    def _choose(self, annotator: str) -> str | None:
        mine, held = self.people[annotator].verdicts, set(self.leases.held_by(annotator))
        turn = random.Random(f"checks {self.plan.seed} {annotator} {len(mine)}").random()
        if turn < self.plan.check_rate:
            for id in self.checks:
                if id not in mine and id not in held:
                    return id
        for id in self.open:
            if id not in self.full and id not in mine and id not in held:
                return id
        return None

    def _show(self, pair: str, annotator: str, tab: str, first: Side) -> View:
        view = View(secrets.token_urlsafe(12), pair, annotator, tab, first, now())
        self.store.add_view(view)
        self._settle_places(self.leases.take(view))
        return view

    def _wanted(self, id: str) -> int:
        return len(self.plan.annotators) if id in self.shared else 1

    def _settle_places(self, changed: Iterable[str]) -> None:
        """Whether pairs whose answers or leases changed are still open, and full."""
        for id in changed:
            if id not in self.pairs:
                continue
            missing = self._wanted(id) - self.given[id]
            if missing <= 0:
                self.open.pop(id, None)
            elif id not in self.open:
                self.open = {id: None, **self.open}  # taken back: the next one
            (self.full.add if 0 < missing <= self.leases.holders(id) else self.full.discard)(id)

    def _reorder(self) -> None:
        plain = list(self.pairs.values())
        told = [label for label in self.labels.values() if label.pair.expected is None]
        order = [id for id in dict.fromkeys([*self._asking(plain, told), *self.pairs]) if id in self.pairs]
        self.open = {id: None for id in order if self.given[id] < self._wanted(id)}
        self.full = set()
        self._settle_places(self.pairs)
        self._since_order = 0

    # ---- answering ------------------------------------------------------------------------------------------

    def answer(
        self,
        annotator: str,
        view_id: str,
        choice: Choice,
        *,
        seconds: float,
        strength: int | None = None,
        reasons: Sequence[str] = (),
    ) -> None:
        """Take the answer to a view. The same one again changes nothing, so that whoever missed the reply may repeat
        it. `seconds` are those that the page counted; more than since the view was made can't be.

        Raises:
            Refused: no such view of this annotator.
        """
        view = self.store.view(view_id)
        if view is None or view.annotator != annotator or not (view.pair in self.pairs or view.pair in self.checks):
            raise Refused("this question isn't open any more")
        if self.store.answered(view_id):
            return
        pair, verdict, at = self.pair(view.pair), verdict_of(choice, view.first), now()
        since = (datetime.fromisoformat(at) - datetime.fromisoformat(view.at)).total_seconds()
        spent = round(max(0.0, min(seconds, since)), 2)
        strength = strength if verdict in ("a", "b") else None
        label = Label(pair, annotator, verdict, view.first, spent, at, strength, tuple(reasons))
        self.store.add_label(label, view_id)
        if self.leases.of_tab(annotator, view.tab) == view:
            self._settle_places(self.leases.drop(view))
        self._replace(pair.id, annotator, label)
        self.people[annotator].seconds.append(spent)

    def undo(self, annotator: str, tab: str) -> View | None:
        """Take the annotator's latest answer back and show its pair again, in the order that it had; None = there is
        none to take back."""
        undone = self.store.undo(annotator, now(), {*self.pairs, *self.checks})
        if undone is None:
            return None
        label, mine = undone[0], self.people[annotator]
        if mine.seconds:
            mine.seconds.pop()
        earlier = [one for one in self.store.labels(annotator) if one.pair.id == label.pair.id]
        self._replace(label.pair.id, annotator, earlier[0] if earlier else None)
        return self._show(label.pair.id, annotator, tab, label.first)

    def settle(self, pair: str, choice: Choice | None, first: Side) -> None:
        """The owner's decision on a pair that annotators see differently; None takes it back."""
        old = self.labels.get((pair, ADJUDICATOR))
        if choice is not None:
            of = next(label.pair for label in self.labels.values() if label.pair.id == pair)
            label = Label(of, ADJUDICATOR, verdict_of(choice, first), first, 0.0, now())
            self.store.add_label(label)
            self._replace(pair, ADJUDICATOR, label)
        elif old is not None:
            while self.store.undo(ADJUDICATOR, now(), {pair}):  # an earlier decision doesn't come back
                pass
            self._replace(pair, ADJUDICATOR, None)

    def _replace(self, pair: str, annotator: str, label: Label | None) -> None:
        old = self.labels.pop((pair, annotator), None)
        if old is not None:
            self._count(old, -1)
        if label is not None:
            self.labels[pair, annotator] = label
            self._count(label, 1)
        self._settle_places([pair])
        self._since_order += 1
        if self._since_order >= max(REORDER_EVERY, len(self.pairs) // 20):
            self._reorder()

    def _count(self, label: Label, by: int) -> None:
        if label.pair.id in self.given and label.verdict != "skip" and label.annotator != ADJUDICATOR:
            self.given[label.pair.id] += by
        person = self.people.get(label.annotator)
        if person is not None and by > 0:
            person.verdicts[label.pair.id] = label.verdict
        elif person is not None:
            person.verdicts.pop(label.pair.id, None)

    def progress(self, annotator: str) -> Progress:
        """How far they are."""
        person = self.people[annotator]
        mine = [id for id in person.verdicts if id in self.pairs or id in self.checks]
        elsewhere = len(self.full) - sum(id in self.full for id in {*mine, *self.leases.held_by(annotator)})
        left = max(0, len(self.open) - sum(id in self.open for id in mine) - elsewhere)
        rate = self.plan.check_rate
        if rate and self.checks:  # one question in 1/rate, so some may never come
            unseen = sum(id not in person.verdicts for id in self.checks)
            left += unseen if rate == 1 else min(unseen, round(left * rate / (1 - rate)))
        recent = person.seconds[-RECENT:]
        return Progress(len(mine), left, median(recent) if recent else None)


def _before(span: timedelta) -> str:
    return (datetime.fromisoformat(now()) - span).isoformat(timespec="milliseconds")
