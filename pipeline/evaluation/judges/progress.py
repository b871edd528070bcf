"""How far a judge has come: it is handed what makes a bar, and knows neither terminals nor logs."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    """What shows how far a judge has come."""

    def advance(self, amount: int = 1, figures: Mapping[str, Any] | None = None) -> None:
        """Move on by `amount`, with figures to show."""
        ...


class Progress(Protocol):
    """Makes a bar; judges know neither terminals nor logs."""

    def __call__(self, title: str, total: int) -> AbstractContextManager[Bar]: ...


@contextmanager
def quiet(title: str, total: int) -> Iterator[Bar]:
    """A bar that nobody sees."""
    yield _Silence()


class _Silence:
    def advance(self, amount: int = 1, figures: Mapping[str, Any] | None = None) -> None:
        pass
