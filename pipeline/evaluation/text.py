"""What a set of answers looks like as text: variety, and phrases that took over."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[!?…]", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-case words; '!' and '?' count as words, for they are what gets over-used first."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """All n-grams of a text, in order."""
    tokens = words(text)
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams ÷ n-grams over all texts, in [0, 1] (Li et al. 2016); 0 when there are none."""
    found = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def shares(texts: Sequence[str], sizes: Sequence[int] = (1, 2, 3)) -> dict[str, float]:
    """Share of texts that contain each n-gram at least once."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({" ".join(gram) for n in sizes for gram in ngrams(text, n)})
    return {gram: count / len(texts) for gram, count in counts.items()}


def overused(
    texts: Sequence[str],
    reference: Sequence[str],
    *,
    factor: float = 2.0,
    minimum: float = 0.1,
    limit: int = 20,
) -> list[dict[str, float | str]]:
    """N-grams (n = 1…3) in at least `minimum` of the texts and more than `factor` times the reference's share.

    Returns:
        Rows {"phrase", "share", "reference_share"}, the largest excess first. A longer n-gram whose words are listed
        with the same share already is left out.
    """
    if not texts or not reference:
        return []
    here, there = shares(texts), shares(reference)
    hits = [
        (gram, share, there.get(gram, 0.0))
        for gram, share in here.items()
        if share >= minimum and share > factor * there.get(gram, 0.0)
    ]
    hits.sort(key=lambda hit: (-(hit[1] - hit[2]), len(hit[0])))
    kept: list[dict[str, float | str]] = []
    for gram, share, other in hits:
        inside = any(f" {row['phrase']} " in f" {gram} " and row["share"] == share for row in kept)
        if not inside and len(kept) < limit:
            kept.append({"phrase": gram, "share": share, "reference_share": other})
    return kept
