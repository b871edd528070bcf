"""What `update` needs of processes that work on the same rollout together."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from torch import Tensor


class Processes(Protocol):
    """Each evaluates some rows of every minibatch; gradients and statistics are sums over all of them."""

    def batches(self, items: Sequence[int], size: int) -> Iterable[tuple[Sequence[int], bool]]:
        """This process's batches of at most `size`, as many as everybody's; those that come with False don't count."""
        ...

    def combine(self, parameters: Iterable[Tensor], sums: Tensor, maxima: Tensor) -> None:
        """Add up everybody's gradients and `sums`, take the largest of everybody's `maxima`, in place."""
        ...


class Alone:
    """One process, which evaluates all rows."""

    def batches(self, items: Sequence[int], size: int) -> Iterator[tuple[Sequence[int], bool]]:
        """Consecutive ones, the last may be smaller."""
        return ((items[start : start + size], True) for start in range(0, len(items), size))

    def combine(self, parameters: Iterable[Tensor], sums: Tensor, maxima: Tensor) -> None:
        """Everything is there already."""


ALONE = Alone()
