"""The kinds of chart in the report. Each function draws one and returns its SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter

from pipeline.report.svg import COLORS, PHASES, canvas
from pipeline.report.wording import number

SMOOTH_FROM = 20  # a running mean is drawn through more points than this

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A figure of the page: its title, what to look for, and the picture."""

    title: str
    look: str
    svg: str


@dataclass(frozen=True)
class Line:
    """One line. `measured` points are few and drawn as dots; `exact` ones need no smoothing."""

    label: str
    color: str
    points: Points
    measured: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Whisker:
    """A share with its interval. `low` and `high` are None where there is none."""

    label: str
    color: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bars:
    """One bar in every group: label, name of the colour, and a share for each group, None where there is none."""

    label: str
    color: str
    values: Sequence[float | None]


def running_mean(points: Points) -> list[tuple[float, float]]:
    """Centred mean over about a tenth of the points; the ends, where the window would be cut, have none."""
    half = max(2, len(points) // 20)
    values = [y for _, y in points]
    return [
        (points[i][0], sum(values[i - half : i + half + 1]) / (2 * half + 1)) for i in range(half, len(points) - half)
    ]


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
            percent_axis(axes.yaxis)
        values = [y for line in series for _, y in line.points]
        if floor is not None and min(values) < floor < max(values):
            axes.set_ylim(bottom=floor)
        if len(series) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=len(series))
    return drawing.svg


def _draw(axes: Any, line: Line) -> None:
    color, points = COLORS[line.color], line.points
    x, y = zip(*points, strict=True)
    if line.measured:
        axes.plot(x, y, color=color, linewidth=1.4, marker="o", markersize=4.5, label=line.label)
    elif len(points) > SMOOTH_FROM and not line.exact:
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
        first, last, low, high = (brief(v) for v in (values[0], values[-1], min(values), max(values)))
        unit = " %" if share else ""
        parts.append(f"{line.label}: from {first}{unit} to {last}{unit}, lowest {low}, highest {high}")
    steps = [x for line in series for x, _ in line.points]
    return f"Line chart over steps {min(steps):.0f} to {max(steps):.0f}. " + "; ".join(parts) + "."


def brief(value: float) -> str:
    """A value for those who can't see it, with two or three digits that count."""
    return number(value, 1 if abs(value) >= 10 else 2) if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def stacked(name: str, steps: Sequence[float], phases: Mapping[str, Sequence[float]], unit: str) -> str:
    """Bars over steps, made of phases."""
    means = "; ".join(f"{phase}: {brief(sum(v) / len(v))} on average" for phase, v in phases.items())
    with canvas(name, f"Stacked bars over {len(steps)} steps. {means}.") as drawing:
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
        handles, labels = axes.get_legend_handles_labels()
        rows = [i for column in range(3) for i in range(column, len(labels), 3)]  # legends are filled by column
        drawing.figure.legend(
            [handles[i] for i in rows], [labels[i] for i in rows], loc="outside lower center", ncols=3
        )
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
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        percent_axis(axes.xaxis)
    return drawing.svg


def bars(name: str, groups: Sequence[str], series: Sequence[Bars], title: str) -> str:
    """Horizontal bars of shares: one group a row, one bar for each of the series. Dashed line at one half."""
    spoken = "; ".join(_spoken_group(i, group, series) for i, group in enumerate(groups))
    thick = 0.78 / len(series)
    with canvas(name, f"{title}. {spoken}.", height=52 + (12 + 12 * len(series)) * len(groups)) as drawing:
        axes = drawing.axes
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        for offset, bar in enumerate(series):
            places = [i + (offset - (len(series) - 1) / 2) * thick for i, v in enumerate(bar.values) if v is not None]
            known = [v for v in bar.values if v is not None]
            axes.barh(places, known, height=thick * 0.86, color=COLORS[bar.color], label=bar.label)
        axes.axvline(0.5, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"])
        axes.set_xlim(0, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        percent_axis(axes.xaxis)
        if len(series) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.01), ncols=len(series))
    return drawing.svg


def _spoken_group(place: int, group: str, series: Sequence[Bars]) -> str:
    values = [(bar.label, bar.values[place]) for bar in series]
    return f"{group}: " + ", ".join(f"{label} {number(100 * v, 0)} %" for label, v in values if v is not None)


def percent_axis(axis: Any) -> None:
    """Ticks of an axis of shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g} %".replace("-", "−")))
