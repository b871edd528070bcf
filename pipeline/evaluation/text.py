"""What a set of answers looks like as text: variety, and phrases that took over."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[!?…]", re.UNICODE)
SIZES = (1, 2, 3)  # words of a phrase


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


def repetition(texts: Sequence[str]) -> float:
    """Share of a text's trigrams that stand in it before, mean over the texts, in [0, 1]; 0 for one without any."""
    shares = [1 - len(set(found)) / len(found) if (found := ngrams(text, 3)) else 0.0 for text in texts]
    return sum(shares) / len(shares) if shares else 0.0


def phrases(text: str) -> list[str]:
    """The different n-grams (n = 1…3) of a text, in the order of their appearance."""
    return list(dict.fromkeys(" ".join(gram) for n in SIZES for gram in ngrams(text, n)))


def shares(texts: Sequence[str]) -> dict[str, float]:
    """Share of texts that contain each phrase at least once."""
    return _shares([phrases(text) for text in texts])


def _shares(found: Sequence[Sequence[str]]) -> dict[str, float]:
    counts = Counter(phrase for one in found for phrase in one)
    return {phrase: count / len(found) for phrase, count in counts.items()}


class StockPhrases:
    """Phrases that answers come to over-use against a reference, while they are being written.

    A phrase g (n-gram of 1…3 words) stands in a share p of the recent answers, a moving average, and in a share q of
    the reference texts. Where p ≥ `minimum`, a part of its uses is surplus:

        surplus(g) = max(0, 1 − factor · q / p)

    0 up to `factor` times the reference's share, towards 1 for a phrase that the reference hardly knows.
    """

    def __init__(
        self, reference: Sequence[str], *, factor: float = 1.5, minimum: float = 0.05, memory: float = 0.8
    ) -> None:
        self.factor, self.minimum, self.memory = factor, minimum, memory
        self.reference = shares(reference)
        self.recent = dict(self.reference)  # no surplus before anything was written

    def surplus(self, texts: Sequence[str]) -> list[float]:
        """The surplus of each text's phrases, summed; the texts join the recent answers first."""
        found = [phrases(text) for text in texts]
        here = _shares(found)
        mixed = {
            gram: self.memory * self.recent.get(gram, 0.0) + (1 - self.memory) * here.get(gram, 0.0)
            for gram in self.recent.keys() | here.keys()
        }
        self.recent = {gram: share for gram, share in mixed.items() if share > self.minimum / 100}
        weights = {
            gram: 1 - self.factor * self.reference.get(gram, 0.0) / share
            for gram, share in self.recent.items()
            if share >= self.minimum and share > self.factor * self.reference.get(gram, 0.0)
        }
        return [sum(weights.get(gram, 0.0) for gram in one) for one in found]


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
    hits.sort(key=lambda hit: (-(hit[1] - hit[2]), len(hit[0]), hit[0]))
    kept: list[dict[str, float | str]] = []
    for gram, share, other in hits:
        inside = any(f" {row['phrase']} " in f" {gram} " and row["share"] == share for row in kept)
        if not inside and len(kept) < limit:
            kept.append({"phrase": gram, "share": share, "reference_share": other})
    return kept
