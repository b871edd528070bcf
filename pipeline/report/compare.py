"""compare.html: several runs side by side, from their folders alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.atomic import write_atomically
from pipeline.report.charts import Points, Whisker, whiskers
from pipeline.report.comparability import Entry, doubts, entries, verdict
from pipeline.report.comparison_tables import figures, settings, side_by_side
from pipeline.report.curves import NATS, SCORE, Chart
from pipeline.report.frontier import way
from pipeline.report.headline import cautions
from pipeline.report.html import fill
from pipeline.report.overlay import Trace, curves, frontiers
from pipeline.report.shared_answers import shared
from pipeline.report.wording import STAGE_NAMES

# Figure of metrics.jsonl, title, unit, what to look for, and a level to compare with.
OVERLAID = (
    ("objective/score", "Reward score", SCORE, "What is optimised. Compare it with the judge’s.", 0.0),
    ("objective/judge", "Judge’s score", SCORE, "What isn’t optimised. Falls where the reward is gamed.", 0.0),
    ("objective/kl", "KL from SFT", NATS, "How far each policy has gone.", None),
)


def write_comparison(paths: Sequence[Path], out: Path) -> str:
    """Write the page.

    Returns:
        Its headline.

    Raises:
        RunError: fewer than two runs, one given twice, or a run that can't be read.
    """
    runs = entries(paths)
    write_atomically(out, fill("compare.html", content(runs)))
    return verdict(runs)


def compared_figures(paths: Sequence[Path]) -> dict[str, Any]:
    """Headline, doubts, and each run's figures, as plain values. Raises RunError as `write_comparison` does."""
    runs = entries(paths)
    told = [doubt.text for doubt in doubts(runs)]
    return {"headline": verdict(runs), "doubts": told, "runs": [figures(entry) for entry in runs]}


def content(runs: Sequence[Entry]) -> dict[str, Any]:
    """Everything the template shows."""
    found = doubts(runs)
    return {
        "title": f"{len(runs)} runs compared",
        "runs": runs,
        "headline": verdict(runs),
        "doubts": [doubt.text for doubt in found],
        "missing": {
            entry.name: [STAGE_NAMES[stage.name] for stage in entry.run.unfinished]
            for entry in runs
            if entry.run.unfinished
        },
        "table_of_runs": side_by_side(runs),
        "win_chart": win_rates(runs),
        "curves": overlaid(runs),
        "settings": settings(runs),
        "gallery": shared(runs, same_judge=not any(doubt.spoils for doubt in found)),
        "cautions": {entry.label: told for entry in runs if (told := cautions(entry.run))},
    }


def win_rates(runs: Sequence[Entry]) -> Chart | None:
    """Each policy against its SFT, with whiskers."""
    rows = [
        Whisker(f"{entry.number} · {entry.name[-22:]}", entry.color, rate.rate, rate.low, rate.high)
        for entry in runs
        if (rate := entry.rate)
    ]
    if not rows:
        return None
    look = "95 % intervals. Where two don’t overlap, the policies differ; where they do, that isn’t shown."
    title = "Policy against SFT"
    return Chart(title, look, whiskers("win-rates", rows, level=0.5, title=f"{title}, win rates with 95 % intervals"))


def overlaid(runs: Sequence[Entry]) -> list[Chart]:
    """Reward score, judge's score and KL over steps, and score against √KL, of all runs that have them."""
    found = []
    for key, title, unit, look, level in OVERLAID:
        if traces := _traces(runs, [entry.run["policy"].series(key) for entry in runs]):
            found.append(Chart(title, look, curves(key.replace("/", "-"), traces, unit, level=level)))
    if traces := _traces(runs, [way(entry.run["policy"], "objective/score") for entry in runs]):
        look = "Up and to the left is better: more score for less distance."
        found.append(Chart("Score against distance", look, frontiers("frontier", traces)))
    return found


def _traces(runs: Sequence[Entry], points: Sequence[Points]) -> list[Trace]:
    """Those of the runs that have points."""
    return [Trace(entry.number, entry.label, entry.color, own) for entry, own in zip(runs, points, strict=True) if own]
