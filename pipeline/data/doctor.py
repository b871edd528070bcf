"""What may be wrong with data that can be read: repeats, leaks, lengths that give labels away, labels at odds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.schema import Demonstration, Preference, Prompt, Row, fold
from pipeline.data.splits import near_duplicates

NEAR = 0.8  # share of words that two prompts have in common to count as nearly the same


@dataclass(frozen=True)
class Repeats:
    """Rows of one set that say what another one says. Places are such as ``train.jsonl:17``."""

    equal: list[tuple[str, str]]  # (first, again): the whole row but for spacing and case
    near: list[tuple[str, str]]  # prompts that share most of their words, or all of them


@dataclass(frozen=True)
class Leak:
    """A prompt of one set that stands in another one, too."""

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


def repeats(rows: Sequence[Row]) -> Repeats:
    """Equal rows, and prompts that are nearly the same. Several answers to one prompt are no repeats of each other."""
    once = {row.key: row for row in reversed(rows)}
    return Repeats(equal_rows(rows), near_duplicates(reversed(once.values()), NEAR))


def equal_rows(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(first, again) of rows that say the same."""
    first: dict[str, str] = {}
    pairs = ((first.setdefault(text_of(row), row.where), row.where) for row in rows)
    return [(earlier, where) for earlier, where in pairs if earlier != where]


def prompt_leaks(sets: Mapping[str, Sequence[Row]]) -> list[Leak]:
    """Prompts that stand in two sets, equal or nearly the same; each pair of prompts once.

    One data file may serve two stages: only its first set is compared with the others.
    """
    home: dict[str, str] = {}  # where → set
    once: dict[tuple[str, str], Prompt] = {}
    for name, rows in sets.items():
        for row in rows:
            place = f"{name}\x00{row.where}"
            home[place] = name
            once.setdefault((name, row.key), Prompt(row.prompt, place, {}))
    found = []
    for a, b in near_duplicates(once.values(), NEAR):
        if home[a] != home[b]:
            places = a.partition("\x00")[2], b.partition("\x00")[2]
            found.append((home[a], home[b], places, a, b))
    keys = {row.where: row.key for row in once.values()}
    return [Leak(first, second, places, keys[a] == keys[b]) for first, second, places, a, b in found]


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
