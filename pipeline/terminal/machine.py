"""What `align plan` and `align selftest` found, as tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.selftest import Check
from pipeline.stages.plan import StagePlan


def show_checks(found: Sequence[Check], console: Console | None = None) -> None:
    """What `align selftest` found."""
    table = Table(title="Selftest", title_justify="left")
    for head in ("check", "apart", "limit", "", "seconds"):
        table.add_column(head, justify="left" if head in ("check", "") else "right")
    for one in found:
        verdict = "[green]holds[/green]" if one.holds else "[bold red]FAILS[/bold red]"
        table.add_row(one.name, f"{one.measured:.2g}", f"{one.limit:g}", verdict, f"{one.seconds:.1f}")
    (console or Console()).print(table)


def show_plan(
    plans: Sequence[StagePlan],
    *,
    limit: float,
    fixes: dict[str, float],
    ways: dict[str, float],
    console: Console | None = None,
) -> None:
    """What each stage needs, whether that fits into `limit` bytes, and what to change."""
    console = console or Console()
    table = Table(title="Memory by stage, in MB (10⁶ bytes)", title_justify="left")
    for head in ("stage", "lives through it", "largest phase", "peak", "fits"):
        table.add_column(head, justify="right" if head == "peak" else "left")
    for one in plans:
        fits = "[green]yes[/green]" if one.peak <= limit else "[bold red]no[/bold red]"
        phase = f"[bold]{one.largest}[/bold]: {_parts(one.phases[one.largest])}"
        table.add_row(one.stage, _parts(one.stays), phase, f"[bold]{_mb(one.peak)}[/bold]", fits)
    console.print(table)
    console.print(f"There is room for {_mb(limit)} MB.", highlight=False)
    if fixes:
        console.print(_sizes("Peak if one thing were changed", "change", fixes))
    console.print(_sizes("Weights, gradients and Adam of this model, before any activation", "way", ways))


def _sizes(title: str, head: str, sizes: dict[str, float]) -> Table:
    table = Table(head, title=title, title_justify="left")
    table.add_column("MB", justify="right")
    for label, size in sizes.items():
        table.add_row(label, _mb(size))
    return table


def _parts(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} {_mb(size)}" for name, size in sizes.items() if size >= 5e5)


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}"
