"""What may be wrong with data that can be read: repeats, leaks, lengths that give labels away, labels at odds."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from pipeline.data.schema import Demonstration, Preference, Row, fold
from pipeline.data.similar import similar

NEAR = 0.8  # share of words that two prompts have in common to count as nearly the same


@dataclass(frozen=True)
class Leak:
    """A prompt of one set that stands in another one, too. Places are such as ``train.jsonl:17``."""

    first: str
    second: str
    where: tuple[str, str]
    equal: bool  # or nearly the same


@dataclass(frozen=True)
class Labels:
    """What pairs of answers give away about their labels."""

    pairs: int
    longer_wins: int
    equally_long: int
    repeated: list[tuple[str, str]]  # the same pair again
    contradicting: list[tuple[str, str]]  # the same two answers, the other one chosen


def text_of(row: Row) -> str:
    """All of a row's words that count when two rows are compared."""
    if isinstance(row, Preference):
        return "\x00".join((row.key, fold(row.chosen), fold(row.rejected)))
    if isinstance(row, Demonstration):
        return "\x00".join((row.key, fold(row.completion)))
    return row.key


def equal_rows(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(first, again) of rows that say the same but for spacing and case. Other answers to a prompt are other rows."""
    first: dict[str, str] = {}
    pairs = ((first.setdefault(text_of(row), row.where), row.where) for row in rows)
    return [(earlier, where) for earlier, where in pairs if earlier != where]


def compare_prompts(
    sets: Mapping[str, Sequence[Row]], advance: Callable[[int], object] = lambda count: None
) -> tuple[dict[str, list[tuple[str, str]]], list[Leak]]:
    """Prompts that are nearly the same within a set, and those of one set that stand in another, too.

    All sets are compared in one go. Several rows with one prompt count as one, the first of them; `advance` is told how
    many were just looked up.

    Returns:
        Pairs of places by set, and leaks: a set's prompt that is equal to one of an earlier set, or else nearly so.
    """
    places = {name: {row.key: row.where for row in reversed(rows)} for name, rows in sets.items()}
    keys = list(dict.fromkeys(row.key for rows in sets.values() for row in rows))
    alike: defaultdict[str, list[str]] = defaultdict(list)
    near: dict[str, list[tuple[str, str]]] = {name: [] for name in sets}
    for a, b in ((keys[a], keys[b]) for a, b in similar(keys, NEAR, advance)):
        alike[a].append(b)
        alike[b].append(a)
        for name, own in places.items():
            if a in own and b in own:
                near[name].append((own[a], own[b]))
    leaks = []
    for first, second in combinations(sets, 2):
        for key in (key for key in keys if key in places[second]):
            found = [other for other in (key, *alike[key]) if other in places[first]]
            if found:
                where = places[first][found[0]], places[second][key]
                leaks.append(Leak(first, second, where, equal=found[0] == key))
    return near, leaks


def labels(pairs: Sequence[Preference], lengths: Sequence[tuple[int, int]]) -> Labels:
    """Length bias and labels at odds; `lengths` are of (chosen, rejected), in tokens."""
    longer = sum(chosen > rejected for chosen, rejected in lengths)
    equal = sum(chosen == rejected for chosen, rejected in lengths)
    seen: dict[tuple[str, str, str], str] = {}
    contradicting = []
    for pair in pairs:
        chosen, rejected = fold(pair.chosen), fold(pair.rejected)
        if (earlier := seen.get((pair.key, rejected, chosen))) is not None:
            contradicting.append((earlier, pair.where))
        seen.setdefault((pair.key, chosen, rejected), pair.where)
    return Labels(len(pairs), longer, equal, equal_rows(pairs), contradicting)
