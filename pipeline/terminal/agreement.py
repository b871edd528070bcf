"""What `align collect agreement` found, as two tables and notes."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.terminal.data import some

COEFFICIENTS = {
    "raw": "same verdict",
    "cohen_kappa": "Cohen's κ",
    "fleiss_kappa": "Fleiss' κ",
    "alpha_nominal": "Krippendorff's α, nominal",
    "alpha_ordinal": "Krippendorff's α, ordinal a < tie < b",
}
FEWEST_SECONDS = 3.0  # a median below this can't be reading


def show_quality(figures: dict[str, Any], console: Console | None = None) -> None:
    """All that `align collect agreement` has to say, what needs attention last."""
    console = console or Console()
    verdicts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in figures["verdicts"].items() if count)
    labels = some(figures["labels"], "label", "labels")
    console.print(f"{labels} of {some(figures['pairs'], 'pair', 'pairs')}: {verdicts}", highlight=False)
    if figures["agreement"]["pairs"]:
        console.print(_agreement(figures["agreement"]))
    console.print(_people(figures["annotators"]))
    for line in notes(figures):
        console.print(f"• {line}", highlight=False, markup=False)


def _agreement(found: dict[str, Any]) -> Table:
    table = _table(f"Agreement on {some(found['pairs'], 'pair', 'pairs')} judged by several")
    for head in ("figure", "value", "95 % interval"):
        table.add_column(head, justify="left" if head == "figure" else "right")
    for key, label in COEFFICIENTS.items():
        if key in found:
            table.add_row(label, f"{found[key]:.3f}", f"{found[f'{key}_low']:.3f} – {found[f'{key}_high']:.3f}")
    return table


def _people(people: list[dict[str, Any]]) -> Table:
    table = _table(
        "Annotators; planted: checks passed; first, longer: share chosen of answers shown first, of longer ones"
    )
    for head in ("annotator", "labels", "planted", "first", "longer", "seconds"):
        table.add_column(head, justify="left" if head == "annotator" else "right")
    for one in people:
        passed = f"{one['planted_right']} of {one['planted']}" if one["planted"] else "–"
        table.add_row(
            *(escape(one["annotator"]), f"{one['labels']:,}", passed),
            *(_share(one, "first"), _share(one, "longer"), f"{one['seconds']:.1f}"),
        )
    return table


def notes(figures: dict[str, Any]) -> list[str]:
    """What needs attention: nobody to compare with, a liking for a place, failed checks, too fast."""
    found = []
    if not figures["agreement"]["pairs"]:
        found.append("no pair was judged by two people, so nothing is known about agreement")
    elif "alpha_nominal" not in figures["agreement"]:
        found.append("everybody always gave the same verdict, so κ and α say nothing")
    for one in figures["annotators"]:
        name = one["annotator"]
        if one.get("first_p", 1.0) < 0.05:
            shown = f"{one['first']:.0%} of {one['first_n']} (p = {one['first_p']:.2g})"
            found.append(f"{name} leans on places: chose what was shown first in {shown}")
        if one["planted_right"] < one["planted"]:
            found.append(f"{name} missed {one['planted'] - one['planted_right']} of {one['planted']} planted pairs")
        if one["seconds"] < FEWEST_SECONDS:
            found.append(f"{name} answered in {one['seconds']:.1f} s in the median: that is hardly reading")
    return found


def _share(one: dict[str, Any], key: str) -> str:
    return f"{one[key]:.0%} [{one[f'{key}_low']:.0%}, {one[f'{key}_high']:.0%}]" if key in one else "–"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
