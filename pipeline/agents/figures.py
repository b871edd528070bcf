"""Pictures of learning: curves with an interval over seeds, and a maze seen three ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from pipeline.agents.maze import GOAL, MOVES, START, WALL, Maze

INK, MUTED, GRID, FLOOR, STONE = "#22272e", "#6b7480", "#e3e6ea", "#fbfaf8", "#39404a"
HUES = ("#2b6cb0", "#c45419", "#2f8f5b", "#8a4fa3", "#b3932a", "#5a6b7b", "#c13f6d")
FAR, NEAR = "#eef2f6", "#2f6aa8"  # low and high values
STYLE: Any = {
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
GRID_POINTS = 100
SMOOTH_OVER = 0.05  # share of the steps that a point of a curve is the mean of
DPI = 144

Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """One seed's learning: mean returns of the episodes that ended up to each step."""

    steps: Sequence[float]
    returns: Sequence[float]


def learning_curves(series: Mapping[str, Sequence[Curve]], title: str, path: Path) -> None:
    """One line for each name: the mean over its seeds, in a 95 % t-interval of the mean; single seeds without one."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        means: list[Array] = []
        for (name, curves), color in zip(series.items(), _hues(len(series)), strict=True):
            if not curves:
                axes.plot([], [], color=color, label=f"{name} (no episode ended)")
                continue
            grid, mean, low, high = interval(curves)
            means.append(mean)
            axes.plot(grid, mean, color=color, linewidth=2, label=_with_count(name, len(curves)))
            if len(curves) > 1:
                axes.fill_between(grid, low, high, color=color, alpha=0.18, linewidth=0)
        if means:
            axes.set_ylim(*_window(np.concatenate(means)))
        axes.set_title(title)
        axes.set_xlabel("environment steps")
        axes.set_ylabel("return while learning")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.legend(loc="best")
        figure.savefig(path, dpi=DPI)


def _window(means: Array) -> tuple[float, float]:
    """What of the returns to show: all but the lowest twentieth, which beginners get, and some air for intervals."""
    low, high = np.quantile(means, 0.05), means.max()
    air = 0.15 * max(high - low, 1.0)
    return float(low - air), float(high + air)


def interval(curves: Sequence[Curve]) -> tuple[Array, Array, Array, Array]:
    """Grid of steps, mean over seeds, and its 95 % t-interval, each [100]; the mean thrice for a single seed."""
    end = min(curve.steps[-1] for curve in curves)
    grid = np.linspace(max(curve.steps[0] for curve in curves), end, GRID_POINTS)
    lines = np.stack([np.interp(grid, curve.steps, _smooth(curve, end)) for curve in curves])
    mean = lines.mean(axis=0)
    if len(curves) == 1:
        return grid, mean, mean, mean
    half = stats.t.ppf(0.975, len(curves) - 1) * lines.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return grid, mean, mean - half, mean + half


def _smooth(curve: Curve, end: float) -> Array:
    """Means over the last twentieth of the steps before each point."""
    steps, returns = np.asarray(curve.steps), np.asarray(curve.returns)
    first = np.searchsorted(steps, steps - SMOOTH_OVER * end)
    sums = np.concatenate([[0.0], returns.cumsum()])
    last = np.arange(1, len(steps) + 1)
    smooth: Array = (sums[last] - sums[first]) / (last - first)
    return smooth


def maze_views(maze: Maze, q: Tensor, path: Path, *, seen: Tensor | None = None, planned: Tensor | None = None) -> None:
    """Side by side: the policy as arrows, the values as numbers and colours, and what the agent knows of the world.

    Args:
        maze: where.
        q: [S,A] action values.
        path: a PNG.
        seen: [S,A] bool, the moves tried; with it there is a third picture.
        planned: [S] values of planning on the learned model, for that picture.
    """
    views = 2 if seen is None else 3
    height, width = len(maze.rows), len(maze.rows[0])
    side = max(3.2, 0.36 * width)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(side * views, side * height / width + 0.5), layout="constrained")
        panels = figure.subplots(1, views)
        _draw_policy(panels[0], maze, q)
        _draw_values(panels[1], maze, q.amax(dim=1), "Value of each cell")
        if seen is not None:
            _draw_model(panels[2], maze, seen, planned)
        figure.savefig(path, dpi=DPI)


def _draw_policy(axes: Axes, maze: Maze, q: Tensor) -> None:
    """An arrow for every best action; ties show all of them."""
    _board(axes, maze, "Policy: the best move")
    best = (q >= q.amax(dim=1, keepdim=True) - 1e-9).tolist()
    for state, (r, c) in enumerate(maze.cells):
        if state == maze.goal:
            continue
        for (dr, dc), good in zip(MOVES, best[state], strict=True):
            if good:
                back = 0.34 if sum(best[state]) == 1 else 0.0  # arrows that share a cell start at its middle
                tail = (c - back * dc, r - back * dr)
                head = (c + 0.4 * dc, r + 0.4 * dr)
                axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": HUES[0], "linewidth": 1.4})


def _draw_values(axes: Axes, maze: Maze, values: Tensor, title: str) -> None:
    """Colour and number of every cell."""
    _board(axes, maze, title)
    numbers = values.tolist()
    shown = [value for state, value in enumerate(numbers) if state != maze.goal]
    low, span = min(shown), max(max(shown) - min(shown), 1e-9)
    colours = LinearSegmentedColormap.from_list("values", [FAR, NEAR])
    for state, (r, c) in enumerate(maze.cells):
        if state == maze.goal:
            continue
        share = (numbers[state] - low) / span
        _tile(axes, r, c, colours(share))
        ink = "white" if share > 0.55 else INK
        axes.text(c, r, f"{numbers[state]:.0f}".replace("-", "−"), ha="center", va="center", fontsize=7.5, color=ink)


def _draw_model(axes: Axes, maze: Maze, seen: Tensor, planned: Tensor | None) -> None:
    """A tick towards every move that was tried; cells that were never left are hatched."""
    moves = [state for state in range(len(maze.cells)) if state != maze.goal]
    share = f"{100 * seen[moves].float().mean():.0f} % of moves tried"
    if planned is None:
        _board(axes, maze, f"Known moves: {share}")
    else:
        _draw_values(axes, maze, planned, f"Plan on its model: {share}")
    for state, (r, c) in enumerate(maze.cells):
        if state == maze.goal:
            continue
        for (dr, dc), tried in zip(MOVES, seen[state].tolist(), strict=True):
            if tried:
                axes.plot([c + 0.36 * dc, c + 0.48 * dc], [r + 0.36 * dr, r + 0.48 * dr], color=HUES[1], linewidth=2)
        if not seen[state].any():
            axes.add_patch(_square(r, c, facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0))


def _board(axes: Axes, maze: Maze, title: str) -> None:
    for r, row in enumerate(maze.rows):
        for c, mark in enumerate(row):
            _tile(axes, r, c, STONE if mark == WALL else FLOOR)
            if mark in (START, GOAL):
                place = (c, r) if mark == GOAL else (c - 0.4, r - 0.28)  # the start has an arrow or a number, too
                side = "center" if mark == GOAL else "left"
                axes.text(
                    place[0], place[1], mark, ha=side, va="center", weight="bold", fontsize=9, color=HUES[1], zorder=3
                )
    axes.set_title(title)
    axes.set_xlim(-0.5, len(maze.rows[0]) - 0.5)
    axes.set_ylim(len(maze.rows) - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.axis("off")


def _tile(axes: Axes, r: int, c: int, colour: Any) -> None:
    axes.add_patch(_square(r, c, facecolor=colour, edgecolor="white", linewidth=0.6))


def _square(r: int, c: int, **style: Any) -> Any:
    return mpl.patches.Rectangle((c - 0.5, r - 0.5), 1, 1, **style)


def _hues(count: int) -> list[str]:
    return [HUES[index % len(HUES)] for index in range(count)]


def _with_count(name: str, seeds: int) -> str:
    return f"{name} ({seeds} seeds)" if seeds > 1 else name
