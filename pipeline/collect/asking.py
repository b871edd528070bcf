"""What is asked next: an order of the pairs, made anew as labels come in."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.collect.errors import CollectError
from pipeline.collect.records import Label, Pair

Scores = Callable[[Sequence[Pair]], Mapping[str, float]]  # by pair, how much its label would tell


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


def by_disagreement(scores: Scores) -> Asking:
    """First what the scores are highest on, whatever the labels say: the ensemble doesn't learn while people answer."""

    def order(pairs: Sequence[Pair], labels: Sequence[Label]) -> Sequence[str]:
        found = scores(pairs)
        return sorted((pair.id for pair in pairs), key=lambda id: (-found[id], id))

    return order


def mixed(wanted: Asking, measuring: Asking) -> Asking:
    """One by each in turn, each the first of its order that isn't taken yet.

    Labels that a strategy chose tell nothing about pairs at large. Of the other half, what stands before the first
    pair of `measuring`'s order that has no label is a fair sample, if that order is at random.
    """

    def order(pairs: Sequence[Pair], labels: Sequence[Label]) -> Sequence[str]:
        found: dict[str, None] = {}
        queues = [iter(strategy(pairs, labels)) for strategy in (wanted, measuring)]
        while len(found) < len(pairs):
            for queue in queues:
                if (new := next((id for id in queue if id not in found), None)) is not None:
                    found[new] = None
        return list(found)

    return order


def ensemble_scores(run: Path) -> Scores:
    """How much the run's reward models disagree on pairs, in [0, ½]; each pair is scored once.

    Raises (when it is asked):
        RunError: the run's reward stage isn't finished, or it trained one reward model only.
    """
    known: dict[str, float] = {}

    def scores(pairs: Sequence[Pair]) -> Mapping[str, float]:
        new = [pair for pair in pairs if pair.id not in known]
        if new:
            from pipeline.stages.disagreement import disagreements  # loads the models' libraries

            found = disagreements(run, [(pair.prompt, pair.a.text, pair.b.text) for pair in new])
            known.update(zip((pair.id for pair in new), found.tolist(), strict=True))
        return known

    return scores


# By the name that `--ask` takes; given the seed and the run folder.
ASKING: dict[str, Callable[[int, Path], Asking]] = {
    "random": lambda seed, run: at_random(seed),
    "disagreement": lambda seed, run: by_disagreement(ensemble_scores(run)),
    "mix": lambda seed, run: mixed(by_disagreement(ensemble_scores(run)), at_random(seed)),
}


def asking(name: str, seed: int, run: Path) -> Asking:
    """The strategy of that name.

    Raises:
        CollectError: there is none.
    """
    if name not in ASKING:
        raise CollectError(f"--ask {name}: there is only {', '.join(ASKING)}")
    return ASKING[name](seed, run)
