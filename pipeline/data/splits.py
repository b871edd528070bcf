"""Splitting by prompt, so that no question is both trained on and judged on.

Rows are split by a keyed hash of their prompt. All rows of one prompt land in one part, and a row's part
depends on nothing but its prompt, the seed and the fractions: adding or removing other rows moves none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Protocol, TypeVar

from pipeline.data.rows import DataError


class Keyed(Protocol):
    """Anything with a prompt: `Demonstration`, `Preference`, `Prompt`."""

    @property
    def key(self) -> str: ...

    @property
    def where(self) -> str: ...


R = TypeVar("R", bound=Keyed)


def split_by_prompt(rows: Iterable[R], fractions: Mapping[str, float], *, seed: int) -> dict[str, list[R]]:
    """Split rows into named parts.

    Args:
        rows: Kept in their order within each part.
        fractions: Expected share of prompts by part, summing to 1. Their order matters.
        seed: Key of the hash.

    Raises:
        DataError: If the fractions are negative or do not sum to 1.
    """
    if any(not share >= 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1):
        raise DataError(f"fractions = {dict(fractions)}. Fix: use shares of at least 0 that sum to 1.")
    parts: dict[str, list[R]] = {name: [] for name in fractions}
    for row in rows:
        parts[_part(_position(row.key, seed), fractions)].append(row)
    return parts


def leaks(parts: Mapping[str, Sequence[Keyed]]) -> list[tuple[str, str, str]]:
    """Prompts that occur in more than one part, as (part, other part, key)."""
    keys = {name: dict.fromkeys(row.key for row in rows) for name, rows in parts.items()}
    return [(a, b, key) for a, b in combinations(keys, 2) for key in keys[a] if key in keys[b]]


def assert_disjoint(parts: Mapping[str, Sequence[Keyed]]) -> None:
    """Demand that no prompt occurs in two parts.

    Raises:
        DataError: With the number of shared prompts and the first few.
    """
    found = leaks(parts)
    if not found:
        return
    shown = "; ".join(f"{a} and {b}: {key[:80]!r}" for a, b, key in found[:3])
    raise DataError(f"{len(found)} prompt(s) occur in two parts, e.g. {shown}. Fix: split with split_by_prompt.")


def _position(key: str, seed: int) -> float:
    digest = blake2b(key.encode("utf-8"), key=str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _part(position: float, fractions: Mapping[str, float]) -> str:
    edge = 0.0
    for name, share in fractions.items():
        edge += share
        if position < edge:
            return name
    # Rounding may leave the last edge a hair below 1; that hair belongs to the last part that wants any rows.
    return [name for name, share in fractions.items() if share > 0][-1]
