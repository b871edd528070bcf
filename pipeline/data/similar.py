"""Prompts that are nearly the same: word sets that overlap, found without comparing all with all."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from pipeline.data.rows import DataError
from pipeline.data.splits import Keyed

SHARED = 3  # rare words that two texts must have in common before they are compared
AT_ONCE = 512  # texts that are looked up together


def near_duplicates(rows: Iterable[Keyed], threshold: float = 0.6) -> list[tuple[str, str]]:
    """Pairs of rows whose prompts share most of their words; see `similar`.

    Returns:
        (where, where) in the order of the rows. Equal prompts are paired with the first of their kind only.

    Raises:
        DataError: If the threshold is not in (0, 1].
    """
    places: list[str] = []
    first: dict[str, int] = {}
    repeats: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        places.append(row.where)
        earlier = first.setdefault(row.key, index)
        if earlier != index:
            repeats.append((earlier, index))
    once = list(first.values())
    alike = [(once[a], once[b]) for a, b in similar(list(first), threshold)]
    return [(places[a], places[b]) for a, b in sorted(repeats + alike)]


def similar(
    texts: Sequence[str], threshold: float, advance: Callable[[int], object] = lambda count: None
) -> list[tuple[int, int]]:
    """Pairs of texts with |A ∩ B| / |A ∪ B| ≥ threshold, the Jaccard index of their word sets.

    Exact. A text of n words needs c = ⌈threshold · n⌉ of them in any match. With all words sorted from rare to
    frequent, two such texts share s ≤ c words already among the first n − c + s of each (prefix filter of Chaudhuri et
    al. 2006, with several words as in Wang, Li and Feng 2012): rare words, which few texts have. One sparse product
    counts them, and only what passes is compared word by word. Text without spaces between words counts as one word,
    so there only equal texts are found.

    Args:
        texts: different from each other.
        threshold: in (0, 1].
        advance: called with the number of texts that were just looked up, for a progress bar.

    Returns:
        Pairs of indices (i, j), i < j, in order.

    Raises:
        DataError: If the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise DataError(f"threshold = {threshold}. Fix: use a share in (0, 1].")
    words = [set(re.findall(r"\w+", text)) for text in texts]
    sizes = np.array([len(own) for own in words], dtype=np.int64)
    # The small term keeps rounding (0.6 * 5 may come out above 3) from asking for one word too many.
    needed = np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    shared = np.minimum(needed, SHARED)
    rare = _rare_first(words, sizes - needed + shared)
    owners = rare.T.tocsr()
    pairs = []
    for start in range(0, len(texts), AT_ONCE):
        counts = (rare[start : start + AT_ONCE] @ owners).tocoo()
        later, earlier = counts.row.astype(np.int64) + start, counts.col.astype(np.int64)
        likely = (earlier < later) & (counts.data >= np.minimum(shared[later], shared[earlier]))
        for a, b in zip(earlier[likely].tolist(), later[likely].tolist(), strict=True):
            both = len(words[a] & words[b])
            if both >= threshold * (len(words[a]) + len(words[b]) - both) - 1e-9:
                pairs.append((a, b))
        advance(len(texts[start : start + AT_ONCE]))
    return sorted(pairs)


def _rare_first(words: Sequence[set[str]], counts: np.ndarray) -> csr_array:
    """[texts, vocabulary] with a 1 at the rarest words of each text, as many as `counts` says."""
    frequency = Counter(chain.from_iterable(words))
    rank = {word: place for place, word in enumerate(sorted(frequency, key=lambda word: (frequency[word], word)))}
    columns = [sorted(rank[word] for word in own)[:count] for own, count in zip(words, counts.tolist(), strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in columns])])
    flat = np.fromiter(chain.from_iterable(columns), dtype=np.int32, count=int(offsets[-1]))
    return csr_array((np.ones(len(flat), dtype=np.int32), flat, offsets), shape=(len(words), max(1, len(rank))))
