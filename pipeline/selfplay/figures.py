"""The picture of self-play: Elo over generations, plain tree search as a line across."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.agents.figures import DPI, HUES, MUTED, STYLE


def elo_curve(found: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """Ratings with their 95 % intervals.

    Args:
        found: by name, `rating`, `low` and `high`; names that end in a number after "generation " are points, the
            others lines across.
        title: above it.
        path: a PNG.
    """
    points = {int(name.split()[1]): one for name, one in found.items() if name.startswith("generation ")}
    places = sorted(points)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        low, middle, high = ([points[place][key] for place in places] for key in ("low", "rating", "high"))
        axes.plot(places, middle, color=HUES[0], linewidth=2, marker="o", markersize=4)
        axes.fill_between(places, low, high, color=HUES[0], alpha=0.18, linewidth=0)
        for (name, one), hue in zip(
            ((name, one) for name, one in found.items() if not name.startswith("generation ")), HUES[1:], strict=False
        ):
            axes.axhline(one["rating"], color=hue, linewidth=1.4, linestyle="--")
            axes.axhspan(one["low"], one["high"], color=hue, alpha=0.10, linewidth=0)
            axes.annotate(name, (places[0], one["rating"]), (2, 4), textcoords="offset points", color=hue)
        axes.set_title(title)
        axes.set_xlabel("generation")
        axes.set_ylabel("Elo, generation 0 = 1000", color=MUTED)
        figure.savefig(path, dpi=DPI)
