"""The kinds of chart in the report. Each function draws one and returns its SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.report.svg import COLORS, PHASES, RAMP, canvas
from pipeline.report.wording import number

SMOOTH_FROM = 20  # a running mean is drawn through more points than this

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line: its label, the name of its colour, its points. `measured` points are few and drawn as dots."""

    label: str
    color: str
    points: Points
    measured: bool = False


@dataclass(frozen=True)
class Mark:
    """A single labelled point."""

    label: str
    color: str
    x: float
    y: float


@dataclass(frozen=True)
class Whisker:
    """A share with its interval. `low` and `high` are None where there is none."""

    label: str
    color: str
    value: float
    low: float | None = None
    high: float | None = None


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Centred mean over about a tenth of the points; shorter windows at the ends, so that nothing is made up."""
    half = max(2, len(points) // 20)
    smooth = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        window = [y for _, y in points[i - reach : i + reach + 1]]
        smooth.append((x, sum(window) / len(window)))
    return smooth


def lines(
    name: str,
    series: Sequence[Line],
    unit: str,
    *,
    share: bool = False,
    level: float | None = None,
    floor: float | None = None,
) -> str:
    """Lines over steps. `share`: values in [0, 1], shown as percentages. `level`: a dashed line to compare with.

    `floor` cuts the axis below, for figures that start far off the scale that matters.
    """
    series = [line for line in series if line.points]
    with canvas(name, _spoken(series, share)) as drawing:
        axes = drawing.axes
        if level is not None:
            axes.axhline(level, color=COLORS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        for line in series:
            _draw(axes, line)
        axes.set_title(unit)
        axes.set_xlabel("step")
        if share:
            _percent_axis(axes.yaxis)
        if floor is not None and min(y for line in series for _, y in line.points) < floor:
            axes.set_ylim(bottom=floor)
        if len(series) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=len(series))
    return drawing.svg


def _draw(axes: Any, line: Line) -> None:
    color, points = COLORS[line.color], line.points
    x, y = zip(*points, strict=True)
    if line.measured:
        axes.plot(x, y, color=color, linewidth=1.4, marker="o", markersize=4.5, label=line.label)
    elif len(points) > SMOOTH_FROM:
        axes.plot(x, y, color=color, linewidth=0.7, alpha=0.5)
        axes.plot(*zip(*running_mean(points), strict=True), color=color, linewidth=2, label=line.label)
    else:
        marker = "o" if len(points) < 4 else None
        axes.plot(x, y, color=color, linewidth=1.6, marker=marker, markersize=4, label=line.label)


def _spoken(series: Sequence[Line], share: bool) -> str:
    """First, last, lowest and highest value of each line, for those who can't see it."""
    parts = []
    for line in series:
        values = [100 * y if share else y for _, y in line.points]
        first, last, low, high = (_brief(v) for v in (values[0], values[-1], min(values), max(values)))
        unit = " %" if share else ""
        parts.append(f"{line.label}: from {first}{unit} to {last}{unit}, lowest {low}, highest {high}")
    steps = [x for line in series for x, _ in line.points]
    return f"Line chart over steps {min(steps):.0f} to {max(steps):.0f}. " + "; ".join(parts) + "."


def _brief(value: float) -> str:
    return number(value, 1 if abs(value) >= 10 else 2) if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def frontier(name: str, path: Points, steps: Sequence[float], marks: Sequence[Mark]) -> str:
    """Score against √KL, one dot a step from early to late, with systems from the evaluation as diamonds."""
    alt = f"Scatter plot of score against the square root of KL over {len(path)} steps: " + "; ".join(
        f"{label} at {_brief(x)}, {_brief(y)}"
        for label, (x, y) in [("first step", path[0]), ("last step", path[-1]), *((m.label, (m.x, m.y)) for m in marks)]
    )
    with canvas(name, alt, height=220) as drawing:
        axes = drawing.axes
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.plot(*zip(*path, strict=True), color=COLORS["grid"], linewidth=1)
        colors = [RAMP[i * len(RAMP) // len(path)] for i in range(len(path))]
        axes.scatter(*zip(*path, strict=True), c=colors, s=18, zorder=3)
        for i in sorted({0, len(path) - 1}):
            axes.annotate(f"step {steps[i]:.0f}", path[i], (6, -11), textcoords="offset points", fontsize=9)
        for mark in marks:
            axes.scatter([mark.x], [mark.y], color=COLORS[mark.color], marker="D", s=34, zorder=4)
            axes.annotate(mark.label, (mark.x, mark.y), (7, 4), textcoords="offset points", fontsize=9.5)
        axes.margins(x=0.13, y=0.16)
        axes.set_title("score")
        axes.set_xlabel("√KL (KL in nats per answer)")
    return drawing.svg


def stacked(name: str, steps: Sequence[float], phases: dict[str, Sequence[float]], unit: str) -> str:
    """Bars over steps, made of phases."""
    means = "; ".join(f"{phase}: {_brief(sum(v) / len(v))} on average" for phase, v in phases.items())
    with canvas(name, f"Stacked bars over {len(steps)} steps. {means}.", height=210) as drawing:
        axes = drawing.axes
        below = [0.0] * len(steps)
        for color, (phase, values) in zip(PHASES, phases.items(), strict=False):
            top = [a + b for a, b in zip(below, values, strict=True)]
            # One filled outline a phase: hundreds of steps would be hundreds of rectangles.
            axes.fill_between(steps, below, top, step="mid", color=color, linewidth=0, label=phase)
            below = top
        axes.set_title(unit)
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        drawing.figure.legend(loc="outside lower center", ncols=min(5, len(phases)))
    return drawing.svg


def whiskers(name: str, rows: Sequence[Whisker], *, level: float, title: str) -> str:
    """A dot and its interval per row, on an axis of shares with a dashed line at `level`."""
    spoken = "; ".join(
        f"{row.label}: {100 * row.value:.0f} %"
        + (f", interval {100 * row.low:.0f} to {100 * row.high:.0f} %" if row.low is not None and row.high else "")
        for row in rows
    )
    with canvas(name, f"{title}. {spoken}.", height=46 + 26 * len(rows)) as drawing:
        axes = drawing.axes
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.axvline(level, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (3, 3)))
        for place, row in enumerate(rows):
            color = COLORS[row.color]
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=color, linewidth=2.2)
            axes.plot([row.value], [place], color=color, marker="o", markersize=7)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"])
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    return drawing.svg


def bars(name: str, groups: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]], title: str) -> str:
    """Horizontal bars of shares: one group a row, one bar for each (label, colour, values). Dashed line at one half."""
    spoken = "; ".join(
        f"{group}: " + ", ".join(f"{label} {100 * v[i]:.0f} %" for label, _, v in series if v[i] is not None)  # type: ignore[operator]
        for i, group in enumerate(groups)
    )
    thick = 0.78 / len(series)
    with canvas(name, f"{title}. {spoken}.", height=52 + (12 + 12 * len(series)) * len(groups)) as drawing:
        axes = drawing.axes
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        for offset, (label, color, values) in enumerate(series):
            places = [i + (offset - (len(series) - 1) / 2) * thick for i, v in enumerate(values) if v is not None]
            known = [v for v in values if v is not None]
            axes.barh(places, known, height=thick * 0.86, color=COLORS[color], label=label)
        axes.axvline(0.5, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"])
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        if len(series) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.01), ncols=len(series))
    return drawing.svg


def _percent_axis(axis: Any) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
