"""Evaluations in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.evaluation.leaderboard import Leaderboard


def show_leaderboard(found: Leaderboard, console: Console | None = None) -> None:
    """What `align winrate` found."""
    console = console or Console()
    controlled = found.length_controlled
    table = Table(title=f"{escape(found.system)} against {escape(found.baseline)}", title_justify="left")
    for head in ("", "%", "95 % interval", "standard error"):
        table.add_column(head, justify="left" if head == "" else "right")
    error = "–" if found.standard_error is None else f"{found.standard_error:.3f}"
    table.add_row("win rate", f"[bold]{found.win_rate:.3f}[/bold]", _span(found.low, found.high), error)
    span = _span(100 * controlled.low, 100 * controlled.high)
    table.add_row("win rate at equal length", f"{100 * controlled.rate:.3f}", span, "")
    console.print(table)
    for line in _notes(found):
        console.print(line, highlight=False, markup=False)


def _notes(found: Leaderboard) -> list[str]:
    controlled = found.length_controlled
    missing = f", {found.n_without_verdict:,} more without a verdict" if found.n_without_verdict else ""
    notes = [
        f"{found.n:,} verdicts{missing}: {found.n_wins:,} for {found.system}, {found.n_wins_base:,} for "
        f"{found.baseline}, {found.n_draws:,} ties.",
        f"Mean length in characters: {found.mean_length:,.0f} of {found.system}, {found.mean_length_base:,.0f} of "
        f"{found.baseline}.",
    ]
    if controlled.separated:
        notes.append("The longer answer always wins, or always loses: nothing is known about answers of equal length.")
    elif controlled.extrapolated:
        notes.append(
            f"Only {controlled.overlap:.1%} of the answers are on the rarer side of equal length: the rate there is an "
            "extrapolation."
        )
    return notes


def _span(low: float, high: float) -> str:
    return f"{low:.2f} – {high:.2f}"
