"""Curves of several runs in one chart. A number at the end of each line says whose it is, without the colour."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipeline.report.charts import SMOOTH_FROM, Points, running_mean
from pipeline.report.frontier import DISTANCE, smooth
from pipeline.report.svg import COLORS, ROUND, canvas
from pipeline.report.wording import number

APART = 0.07  # least distance of two numbers, as a share of the chart's height


@dataclass(frozen=True)
class Trace:
    """One run's line; `label` begins with its number."""

    number: int
    label: str
    color: str
    points: Points


def curves(name: str, traces: Sequence[Trace], unit: str, *, level: float | None = None) -> str:
    """Lines over steps, running means where there are more than 20 points. `level`: a dashed line to compare with."""
    drawn = [_smooth(trace) for trace in traces]
    steps = [x for trace in traces for x, _ in trace.points]
    alt = f"Lines of {len(traces)} runs over steps {min(steps):.0f} to {max(steps):.0f}. {_spoken(traces)}."
    with canvas(name, alt) as drawing:
        axes = drawing.axes
        if level is not None:
            axes.axhline(level, color=COLORS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        _draw(axes, drawn)
        axes.set_title(unit)
        axes.set_xlabel("step")
    return drawing.svg


def frontiers(name: str, traces: Sequence[Trace]) -> str:
    """Score against √KL: each run's way from SFT, smoothed. `points` are (√KL, score), in the order of steps."""
    alt = f"Ways of {len(traces)} runs over the square root of KL. {_spoken(traces)}."
    with canvas(name, alt) as drawing:
        axes = drawing.axes
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        _draw(axes, [replace(trace, points=smooth(trace.points)) for trace in traces])
        axes.set_title("score")
        axes.set_xlabel(DISTANCE)
    return drawing.svg


def _smooth(trace: Trace) -> Trace:
    points = running_mean(trace.points) if len(trace.points) > SMOOTH_FROM else trace.points
    return replace(trace, points=points)


def _draw(axes: Any, traces: Sequence[Trace]) -> None:
    for trace in traces:
        x, y = zip(*trace.points, strict=True)
        axes.plot(x, y, color=COLORS[trace.color], linewidth=1.7)
        axes.plot(x[-1:], y[-1:], color=COLORS[trace.color], marker="o", markersize=4)
    axes.margins(x=0.08, y=0.1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    ends = sorted(traces, key=lambda trace: trace.points[-1][1])
    for trace, height in zip(ends, spread([(t.points[-1][1] - low) / (high - low) for t in ends]), strict=True):
        place = (trace.points[-1][0], low + height * (high - low))
        text = str(trace.number)
        axes.annotate(text, place, (6, 0), textcoords="offset points", va="center", fontsize=9.5, fontweight="bold")


def spread(heights: Sequence[float], apart: float = APART) -> list[float]:
    """Rising heights in [0, 1], at least `apart`: moved up where they are close, and back down from the top."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + apart) if placed else height)
    limit = 1.0
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - apart
    return placed


def _spoken(traces: Sequence[Trace]) -> str:
    """The last point of each run, for those who can't see it."""
    return "; ".join(f"{trace.label} ends at {number(trace.points[-1][1])}" for trace in traces)
