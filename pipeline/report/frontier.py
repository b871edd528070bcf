"""Score against distance: what the policy gained, in the reward model's eyes and in the judge's, as it left SFT."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipeline.report.charts import SMOOTH_FROM, Chart, Points, brief, running_mean
from pipeline.report.load import Rows, Run, Stage
from pipeline.report.svg import COLORS, ROUND, canvas
from pipeline.report.wording import system_name, turning_point, under

DISTANCE = "√KL (KL in nats per answer)"
TELLERS = (("reward", "reward model", "objective/score"), ("judge", "judge", "objective/judge"))


@dataclass(frozen=True)
class Mark:
    """A system of the evaluation: a point, named once though there is one for each teller."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Path:
    """One teller's view of the policy on its way: (√KL, score) by step, the fitted curve, systems beside it, and the
    place in `points` of the step whose weights were kept."""

    label: str
    color: str
    points: Points
    fitted: Points
    marks: Sequence[Mark]
    kept: int


def frontier(run: Run) -> list[Chart]:
    """The chart of a run whose policy left its steps; none otherwise."""
    paths = [path for teller in TELLERS if (path := _path(run, *teller))]
    if not paths:
        return []
    turn = turning_point("The judge's", under(run["policy"].metrics, "curve.judge."))
    look = "Where the judge's falls behind, the reward model is gamed. Ring: the kept weights; dashed: fitted."
    return [Chart("Score against distance", f"{look} {turn}".strip(), draw("frontier", paths))]


def _path(run: Run, who: str, label: str, key: str) -> Path | None:
    rows = steps_with(run["policy"], key)
    if not rows:
        return None
    metrics = run["policy"].metrics
    fitted = [(math.sqrt(kl), score) for kl, score in metrics.get(f"curve.{who}.line", [])]
    steps = [row["step"] for row in rows]
    kept = metrics.get("returned_to")
    points = way(run["policy"], key)
    return Path(label, who, points, fitted, systems(run, who), steps.index(kept) if kept in steps else len(steps) - 1)


def steps_with(stage: Stage, key: str) -> Rows:
    """The steps of policy optimisation that have both a KL and the score `key`."""
    return [row for row in stage.rows if "objective/kl" in row and key in row]


def way(stage: Stage, key: str) -> Points:
    """(√KL, score) of every step that has both."""
    return [(distance(row["objective/kl"]), row[key]) for row in steps_with(stage, key)]


def distance(kl: float) -> float:
    """√KL; an estimate may be below 0."""
    return math.sqrt(max(0.0, kl))


def systems(run: Run, who: str) -> list[Mark]:
    """SFT, policy and best-of-n at the score that `who` gives them; best-of-n's KL is at most ln n − (n − 1)/n."""
    metrics = run["evaluate"].metrics
    if (run.config.get("evaluate") or {}).get("sampling"):
        return []  # sampled otherwise than in training: another distribution, so no place on this plane
    n = metrics.get("best_of", 0)
    chosen = math.log(n) - (n - 1) / n if n > 1 else None
    found = []
    for system, kl in (("sft", 0.0), ("policy", metrics.get("kl")), ("best_of_n", chosen)):
        score = metrics.get(f"{who}_score.{system}")
        if kl is not None and score is not None:
            found.append(Mark(system_name(system, n), distance(kl), score))
    return found


def smooth(points: Points) -> list[tuple[float, float]]:
    """Means of both coordinates over a tenth of the steps; few points stay as they are."""
    if len(points) <= SMOOTH_FROM:
        return list(points)
    x, y = (running_mean([(i, point[axis]) for i, point in enumerate(points)]) for axis in (0, 1))
    return [(a[1], b[1]) for a, b in zip(x, y, strict=True)]


def draw(name: str, paths: Sequence[Path]) -> str:
    """Steps as dots, their running mean as a line, the fitted curve dashed, systems as diamonds, a ring for what was
    kept."""
    with canvas(name, _spoken(paths), height=230.0) as drawing:
        axes = drawing.axes
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        for place, path in enumerate(paths):
            color = COLORS[path.color]
            x, y = zip(*path.points, strict=True)
            axes.scatter(x, y, color=color, s=9, alpha=0.3, linewidth=0)
            axes.plot(*zip(*smooth(path.points), strict=True), color=color, linewidth=1.8, label=path.label)
            if path.fitted:
                axes.plot(*zip(*path.fitted, strict=True), color=color, linewidth=1.1, linestyle=(0, (4, 3)))
            _mark(axes, path, color, named=place == 0)
        axes.margins(x=0.08, y=0.12)
        axes.set_title("score")
        axes.set_xlabel(DISTANCE)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=len(paths))
    return drawing.svg


def _mark(axes: Any, path: Path, color: str, *, named: bool) -> None:
    x, y = path.points[path.kept]
    axes.scatter([x], [y], facecolor="none", edgecolor=color, s=70, linewidth=1.6, zorder=4)
    for mark in path.marks:
        axes.scatter([mark.x], [mark.y], color=color, marker="D", s=26, zorder=4)
        if named:
            axes.annotate(mark.label, (mark.x, mark.y), (7, 5), textcoords="offset points", fontsize=9.5)


def _spoken(paths: Sequence[Path]) -> str:
    parts = []
    for path in paths:
        places = [("first step", path.points[0]), ("kept step", path.points[path.kept])]
        places += [(mark.label, (mark.x, mark.y)) for mark in path.marks]
        told = ", ".join(f"{label} at {brief(x)}, {brief(y)}" for label, (x, y) in places)
        parts.append(f"told by the {path.label}: {told}")
    steps = len(paths[0].points)
    return f"Scatter plot of score against the square root of KL over {steps} steps, {'; '.join(parts)}."
