"""What is asked next: an order of the pairs, made anew as labels come in."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.collect.errors import CollectError
from pipeline.collect.records import Label, Pair


class Asking(Protocol):
    """Orders pairs by how much their labels would tell. The server asks in this order, leaving out what is answered."""

    def __call__(self, pairs: Sequence[Pair], labels: Sequence[Label]) -> Sequence[str]:
        """Ids of pairs, the most wanted first. What it leaves out is asked last, in the order of `pairs`.

        Args:
            pairs: all that may be asked; none that are planted.
            labels: each annotator's latest verdicts so far.
        """
        ...


def at_random(seed: int) -> Asking:
    """A fixed order in which every pair is equally likely at every place."""

    def order(pairs: Sequence[Pair], labels: Sequence[Label]) -> Sequence[str]:
        ids = sorted(pair.id for pair in pairs)  # whatever order they came in
        random.Random(seed).shuffle(ids)
        return ids

    return order


ASKING: dict[str, Callable[[int], Asking]] = {"random": at_random}  # by the name that `--ask` takes; given the seed


def asking(name: str, seed: int) -> Asking:
    """The strategy of that name.

    Raises:
        CollectError: there is none.
    """
    if name not in ASKING:
        raise CollectError(f"--ask {name}: there is only {', '.join(ASKING)}")
    return ASKING[name](seed)
