"""What is on whose screen: one view a tab, kept from others for a while."""

from collections import Counter
from collections.abc import Iterator

from pipeline.collect.store import View


class Leases:
    """Views that wait for an answer, in order of time. What changes anything tells which pairs it concerned."""

    def __init__(self) -> None:
        self._by_tab: dict[tuple[str, str], View] = {}
        self._by_pair: dict[str, Counter[str]] = {}

    def of_tab(self, annotator: str, tab: str) -> View | None:
        """What a tab shows."""
        return self._by_tab.get((annotator, tab))

    def holders(self, pair: str) -> int:
        """How many people have a pair on their screens."""
        return len(self._by_pair.get(pair, ()))

    def held(self, annotator: str, pair: str) -> bool:
        """Whether somebody has it on theirs."""
        return annotator in self._by_pair.get(pair, ())

    def held_by(self, annotator: str) -> Iterator[str]:
        """The pairs that somebody has on their screens, once for each."""
        return (pair for pair, holders in self._by_pair.items() if annotator in holders)

    def take(self, view: View) -> list[str]:
        """A tab shows something new, and no longer what it showed."""
        changed = self.drop(view)
        self._by_tab[view.annotator, view.tab] = view
        self._by_pair.setdefault(view.pair, Counter())[view.annotator] += 1
        return [*changed, view.pair]

    def drop(self, view: View) -> list[str]:
        """The tab of this view shows nothing any more."""
        old = self._by_tab.pop((view.annotator, view.tab), None)
        if old is None:
            return []
        holders = self._by_pair[old.pair]
        holders[old.annotator] -= 1
        self._by_pair[old.pair] = +holders
        if not self._by_pair[old.pair]:
            del self._by_pair[old.pair]
        return [old.pair]

    def expire(self, oldest: str) -> list[str]:
        """Drop what is older."""
        changed = []
        while self._by_tab:
            view = next(iter(self._by_tab.values()))
            if view.at >= oldest:
                break
            changed += self.drop(view)
        return changed
