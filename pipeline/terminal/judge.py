"""What `align judge` found, as a table and notes."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.stages.calibrate import Calibration
from pipeline.terminal.data import some


def show_calibration(found: Calibration, console: Console | None = None) -> None:
    """What `align judge` has to say of a judge."""
    figures = found.figures
    title = f"{found.judge} ({found.kind}) on {figures['pairs']:,} pairs of {found.source}"
    table = Table(title=escape(title), title_justify="left")
    for head in ("figure", "share", "95 % interval", "best"):
        table.add_column(head, justify="left" if head in ("figure", "best") else "right")
    rows = {
        "agreement": ("agrees with the labels", "100 %"),
        "consistency": ("same verdict in both orders", "100 %"),
        "first_position": ("votes for what stands first", "50 %"),
        "longer_judge": ("prefers the longer answer", "as the labels do"),
        "longer_labels": ("… and so do the labels", ""),
        "same_vs_same": ("the same against itself", "50 %, exactly"),
    }
    for key, (label, best) in rows.items():
        if key in figures:
            bounds = [figures.get(f"{key}_{end}") for end in ("low", "high")]
            shown = "" if None in bounds else f"{bounds[0]:.1%} – {bounds[1]:.1%}"
            table.add_row(label, f"{figures[key]:.1%}", shown, best)
    console = console or Console()
    console.print(table)
    for line in _calibration_notes(found):
        console.print(f"• {line}", highlight=False)


def _calibration_notes(found: Calibration) -> list[str]:
    figures = found.figures
    notes = []
    if "right" in figures:
        counts = f"{figures['right']:,} right, {figures['ties']:,} ties, {figures['wrong']:,} wrong"
        notes.append(f"{counts}; a tie counts half, a prompt with several pairs once")
    if figures["without_verdict"]:
        notes.append(f"{some(int(figures['without_verdict']), 'pair', 'pairs')} without a verdict, not in the shares")
    if "calls" in figures:
        cost = f"; cost {figures['cost']:.4g}" if "cost" in figures else ""
        notes.append(f"{figures['unparsable']:,} of {figures['calls']:,} replies couldn't be made out{cost}")
    if figures.get("same_vs_same", 0.5) != 0.5:
        notes.append("the same against the same isn't 50 %: this judge doesn't compare what it is shown")
    if found.trained_on:
        notes.append(f"it was trained on the prompts of {found.trained_on:,} of these pairs, which flatters it")
    return notes
