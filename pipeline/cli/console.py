"""What commands say beside their result, on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from pipeline import processes

errors = Console(stderr=True, soft_wrap=True)  # a path stays in one piece; a terminal folds lines itself


@contextmanager
def resumable() -> Iterator[None]:
    """Work that goes on from its newest checkpoint: when it is stopped, say so and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        if processes.main():
            errors.print("stopped; run the same command to go on from the newest checkpoint", style="yellow")
        raise typer.Exit(130) from None
