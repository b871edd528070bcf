"""frontier.html: the runs of a sweep on one plane of score and distance, with their win rates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipeline.atomic import write_atomically
from pipeline.report.charts import Chart, Points, brief, percent_axis
from pipeline.report.frontier import DISTANCE, distance, smooth, way
from pipeline.report.html import fill
from pipeline.report.load import load
from pipeline.report.svg import COLORS, PHASES, RAMP, ROUND, canvas
from pipeline.report.tables import Table
from pipeline.report.wording import DASH, count, duration, interval, number, turning_point
from pipeline.rundir import RunError

Figures = Mapping[str, Any]
TELLERS = {"judge": ("objective/judge", "the held-out judge"), "reward": ("objective/score", "the reward model itself")}
WIN = "evaluate.win_rate.policy_vs_sft"


@dataclass(frozen=True)
class Track:
    """One run: its steps as (√KL, score), and its evaluation's KL and win rate where there is one."""

    label: str
    color: str
    points: Points
    kl: float | None
    win_rate: tuple[float, float, float] | None


def write_frontier(root: Path) -> Path:
    """Write `frontier.html` and `frontier.png` into a sweep's folder from its sweep.json and its runs' folders.

    Raises:
        RunError: no sweep is there, or a file of it can't be read.
    """
    sweep = _read(root / "sweep.json")
    found = tracks(root, sweep)
    charts = [chart for chart in (scores(sweep, found, root / "frontier.png"), wins(found)) if chart]
    page = {
        "title": f"{root.resolve().name}: the sweep’s frontier",
        "name": root.resolve().name,
        "headline": headline(sweep),
        "cautions": cautions(sweep),
        "varied": " × ".join(f"{key} {', '.join(map(str, values))}" for key, values in sweep["swept"].items()),
        "charts": charts,
        "table_of_runs": runs(sweep),
    }
    path = root / "frontier.html"
    write_atomically(path, fill("frontier.html", page))
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise RunError(f"{path.parent} holds no sweep; `align sweep CONFIG 'key=[…]'` makes one") from None
    except (OSError, ValueError):
        raise RunError(f"{path} can't be read; repeat the sweep, which writes it again") from None


def tracks(root: Path, sweep: Figures) -> list[Track]:
    """Every run that left steps of its policy. The colours follow the values where one number varies."""
    (values, *others) = sweep["swept"].values()
    ordered = not others and all(isinstance(value, int | float) for value in values)
    key, _ = TELLERS[sweep["told_by"]]
    found = []
    for place, run in enumerate(sweep["runs"]):
        figures, folder = run["figures"], root / run["run"]
        if not (folder / "policy" / "metrics.jsonl").is_file():
            continue
        if ordered:
            rank = sorted(values).index(run["settings"][next(iter(sweep["swept"]))])
            color = RAMP[2 + rank * (len(RAMP) - 3) // max(1, len(values) - 1)]
        else:
            color = PHASES[place % len(PHASES)]
        points = way(load(folder)["policy"], key)
        rate = tuple(figures[f"{WIN}{end}"] for end in ("", "_low", "_high")) if WIN in figures else None
        found.append(Track(label(run["settings"]), color, points, figures.get("evaluate.kl"), rate))  # type: ignore[arg-type]
    return [track for track in found if track.points]


def label(settings: Figures) -> str:
    """The values, with the last part of their keys."""
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in settings.items())


def scores(sweep: Figures, found: Sequence[Track], png: Path) -> Chart | None:
    """One line a run, its end ringed, and the curve through every step of all of them."""
    if not found:
        return None
    ends = [smooth(track.points)[-1] for track in found]
    spoken = "; ".join(
        f"{track.label} ends at {brief(x)}, {brief(y)}" for track, (x, y) in zip(found, ends, strict=True)
    )
    alt = f"Score against the square root of KL, one line for each of {len(found)} runs: {spoken}."
    curve = sweep.get("curve", {})
    with canvas("sweep-scores", alt, height=250.0, png=png) as drawing:
        axes = drawing.axes
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        if line := curve.get("line"):
            x, y = ([distance(kl) for kl, _ in line], [score for _, score in line])
            axes.plot(x, y, color=COLORS["muted"], linewidth=1.1, linestyle=(0, (4, 3)), label="fitted to all")
        for track, end in zip(found, ends, strict=True):
            axes.plot(*zip(*smooth(track.points), strict=True), color=track.color, linewidth=1.7)
            axes.scatter([end[0]], [end[1]], color=track.color, s=34, zorder=4)
            axes.annotate(track.label, end, (6, 4), textcoords="offset points", fontsize=9)
        axes.margins(x=0.2, y=0.1)
        axes.set_title("score")
        axes.set_xlabel(DISTANCE)
    _, teller = TELLERS[sweep["told_by"]]
    look = f"Told by {teller} while training. Dots: where each run ended; dashed: one curve through all their steps."
    return Chart("Score against distance", f"{look} {turning_point('Its', curve)}".strip(), drawing.svg)


def wins(found: Sequence[Track]) -> Chart | None:
    """Win rates over SFT with their intervals, against the evaluation's distance."""
    shown = [
        (t.label, t.color, distance(t.kl), t.win_rate) for t in found if t.kl is not None and t.win_rate is not None
    ]
    if not shown:
        return None
    spoken = "; ".join(f"{label}: {interval(*rate)} at {brief(x)}" for label, _, x, rate in shown)
    with canvas("sweep-wins", f"Win rate over SFT against the square root of KL. {spoken}.", height=250.0) as drawing:
        axes = drawing.axes
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        axes.axhline(0.5, color=COLORS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        for label, color, x, (rate, low, high) in shown:
            axes.plot([x, x], [low, high], color=color, linewidth=2)
            axes.scatter([x], [rate], color=color, s=34, zorder=4)
            axes.annotate(label, (x, rate), (6, 4), textcoords="offset points", fontsize=9)
        axes.margins(x=0.2, y=0.1)
        axes.set_title("win rate over SFT")
        axes.set_xlabel(DISTANCE)
        percent_axis(axes.yaxis)
    look = "Blind comparison on held-out prompts, 95 % intervals. Intervals that overlap show no difference."
    return Chart("Win rate against distance", look, drawing.svg)


def headline(sweep: Figures) -> str:
    """Which run ended best, and whether the best may lie beyond what was tried."""
    best, total = sweep.get("best"), len(sweep["runs"])
    if best is None:
        return f"No run of {total} has been evaluated yet."
    run = next(run for run in sweep["runs"] if run["run"] == best["run"])
    sentence = f"{label(run['settings'])} ends best: score {number(best['score'])} at KL {number(best['kl'], 1)}"
    if WIN in run["figures"]:
        rate = (run["figures"][f"{WIN}{end}"] for end in ("", "_low", "_high"))
        sentence += f", {interval(*rate)} against SFT"
    return f"{sentence}."


def cautions(sweep: Figures) -> list[str]:
    """What the comparison doesn't show."""
    found = [f"{label(run['settings'])} can't go on: {run['failed']}" for run in sweep["runs"] if run["failed"]]
    found += [
        f"{label(run['settings'])} was stopped by the alarm {run['figures']['policy.stopped_by'].replace('_', ' ')}."
        for run in sweep["runs"]
        if run["figures"].get("policy.stopped_by")
    ]
    best = sweep.get("best")
    if best is None:
        return found
    if not best["inside"]:
        found.append("The best run stands at an end of the frontier: try values beyond.")
    if sweep["told_by"] == "reward":
        found.append("There is no held-out judge: the reward model's own score flatters what it was optimised for.")
    figures = {run["run"]: run["figures"] for run in sweep["runs"] if WIN in run["figures"]}
    if (own := figures.pop(best["run"], None)) is not None:
        alike = [one for one in figures.values() if one[f"{WIN}_high"] >= own[f"{WIN}_low"]]
        if alike:
            found.append(f"Its win rate's interval overlaps with those of {len(alike)} of the {len(figures)} others.")
    return found


def runs(sweep: Figures) -> Table:
    """Every run with its figures."""
    rows = []
    for run in sweep["runs"]:
        one = run["figures"]
        rate = interval(*(one[f"{WIN}{end}"] for end in ("", "_low", "_high"))) if WIN in one else DASH
        who = "evaluate.{}_score.policy"
        rows.append(
            [
                label(run["settings"]),
                number(one.get("evaluate.kl"), 1),
                number(one.get(who.format("reward"))),
                number(one.get(who.format("judge"))),
                rate,
                number(one.get("evaluate.mean_tokens.policy"), 1),
                count(one.get("policy.steps")),
                ", ".join(run["shared"]) or DASH,
                duration(one.get("total_seconds")),
            ]
        )
    heads = ["Run", "KL", "Reward score", "Judge's score", "Win rate over SFT", "Tokens", "Steps", "Shared", "Time"]
    return Table("Every run at its end. Shared stages were done once, by an earlier run.", heads, rows)
