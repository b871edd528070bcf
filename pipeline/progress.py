"""Progress bars with rates and the figures that matter, on terminals; quiet lines elsewhere. Of several processes the
first one speaks."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline import processes

console = Console(stderr=True)
_LINE_EVERY = 30.0  # seconds between lines when there is no terminal


class Bar:
    """One bar; `advance` moves it and shows figures."""

    def __init__(self, title: str, total: int, progress: Progress | None, visible: bool, done: int = 0) -> None:
        self._title, self._total, self._progress, self._visible = title, total, progress, visible
        self._task = None
        if progress is not None:
            self._task = progress.add_task(title, total=total, completed=done, figures="")
        self._figures = ""
        self._done, self._spoke = done, time.monotonic()

    def advance(self, amount: int = 1, figures: Mapping[str, Any] | None = None) -> None:
        """Move on by `amount`; `figures` are shown beside the bar."""
        self._done += amount
        text = "  ".join(f"{name} {_short(value)}" for name, value in (figures or {}).items())
        if self._progress is not None and self._task is not None:
            self._figures = text or self._figures
            self._progress.update(self._task, advance=amount, figures=self._figures)
        elif self._visible and (time.monotonic() - self._spoke > _LINE_EVERY or self._done >= self._total):
            self._spoke = time.monotonic()
            console.print(f"{self._title} {self._done}/{self._total}  {text}", highlight=False)


def by_total(advance: Callable[..., None]) -> Callable[[int, Mapping[str, Any]], None]:
    """Moves a bar for who tells how much is done in all, from 0 on, by what was added since the last time."""
    before = 0

    def report(done: int, figures: Mapping[str, Any]) -> None:
        nonlocal before
        advance(done - before, figures)
        before = done

    return report


@contextmanager
def bar(title: str, total: int, *, visible: bool = True, done: int = 0) -> Iterator[Bar]:
    """A progress bar for the block, `done` of it already; without a terminal, a line every half minute and one at the
    end."""
    visible = visible and processes.main()
    if not (visible and console.is_terminal):
        yield Bar(title, total, None, visible, done)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(title, total, progress, visible, done)


def say(text: str, *, visible: bool = True) -> None:
    """One line for the person who watches."""
    if visible and processes.main():
        console.print(text, highlight=False)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
