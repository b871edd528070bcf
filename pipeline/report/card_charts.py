"""The pictures of a reward model's card, on its own page and in a run's report."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from pipeline.report.card_wording import NAMES, Figures
from pipeline.report.charts import Bars, Chart, Whisker, bars, percent_axis, whiskers
from pipeline.report.svg import COLORS, PHASES, ROUND, canvas
from pipeline.report.wording import number, percent

CHOSEN, REJECTED = PHASES[1], PHASES[4]

Bands = Sequence[Mapping[str, float]]


def confidence(figures: Figures, names: Sequence[str]) -> list[Chart]:
    """Calibration of the named models, and scores and accuracy by margin of the first; none where they aren't known."""
    prefixes = {name: "" if name == names[0] else f"{name}_" for name in names}
    series = {
        name: figures[f"{prefix}calibration"] for name, prefix in prefixes.items() if f"{prefix}calibration" in figures
    }
    if not series:
        return []
    return [
        Chart(
            "Calibration",
            "On the diagonal, confidence is deserved; below it the model is too sure. Bars: 95 % intervals.",
            calibration(series),
        ),
        Chart(
            "Scores of chosen and rejected",
            "The further apart, the more the model sees. Deviations of SFT's scores.",
            histograms(figures["score_bins"], figures["chosen_counts"], figures["rejected_counts"]),
        ),
        Chart(
            "Accuracy by margin",
            "Pairs by how far apart their scores are, in logits; it should rise.",
            margins(figures["accuracy_by_margin"]),
        ),
    ]


def calibration(series: Mapping[str, Bands]) -> str:
    """Share right against mean confidence, with intervals, and the diagonal."""
    spoken = "; ".join(
        f"{NAMES[name]}: "
        + ", ".join(f"claims {percent(band['confidence'])}, right {percent(band['accuracy'])}" for band in bands)
        for name, bands in series.items()
    )
    with canvas("calibration", f"Share of right pairs against claimed confidence. {spoken}.") as drawing:
        axes = drawing.axes
        axes.plot([0.5, 1], [0.5, 1], color=COLORS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        for name, bands in series.items():
            x, y = ([band[key] for band in bands] for key in ("confidence", "accuracy"))
            for place, band in zip(x, bands, strict=True):
                axes.plot([place, place], [band["low"], band["high"]], color=COLORS[name], linewidth=1, alpha=0.5)
            axes.plot(x, y, color=COLORS[name], linewidth=1.4, marker="o", markersize=4.5, label=NAMES[name])
        axes.set_title("right pairs")
        axes.set_xlabel("claimed confidence")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        if len(series) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=len(series))
    return drawing.svg


def histograms(edges: Sequence[float], chosen: Sequence[int], rejected: Sequence[int]) -> str:
    """How the scores of chosen and rejected answers lie, over common bins."""
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    means = [sum(m * n for m, n in zip(middles, counts, strict=True)) / sum(counts) for counts in (chosen, rejected)]
    spoken = f"chosen around {number(means[0])}, rejected around {number(means[1])}"
    with canvas("score-histograms", f"Histograms of the scores of {sum(chosen)} pairs: {spoken}.") as drawing:
        axes = drawing.axes
        for label, color, counts in (("rejected", REJECTED, rejected), ("chosen", CHOSEN, chosen)):
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.3)
            axes.stairs(counts, edges, color=color, linewidth=1.4, label=label)
        axes.set_title("pairs")
        axes.set_xlabel("score")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2)
    return drawing.svg


def margins(bands: Bands) -> str:
    """Accuracy with its interval for each band of |Δ|."""
    rows = [
        Whisker(
            f"{number(band['smallest'], 1)} to {number(band['largest'], 1)}",
            "reward",
            band["accuracy"],
            band["low"],
            band["high"],
        )
        for band in bands
    ]
    return whiskers("accuracy-by-margin", rows, level=0.5, title="Accuracy by margin with 95 % intervals")


def subsets(figures: Figures, names: Sequence[str]) -> Chart:
    """Accuracy of each subset beside what its answers' length achieves."""
    groups = [name[:28] for name in names]
    series = [
        Bars(label, color, [figures[f"subsets.{name}.{key}"] for name in names])
        for label, color, key in (("model", "reward", "accuracy"), ("length", "muted", "length_baseline"))
    ]
    look = "Short bars are what the model can't see, and so what a policy may get away with."
    return Chart("Accuracy by subset", look, bars("subsets", groups, series, "Accuracy by subset"))


def best_of_n(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Chart:
    """Scores of the best of n answers, told by the model that chooses and by the other."""
    spoken = "; ".join(f"{NAMES[name]}: from {number(rows[0][name])} to {number(rows[-1][name])}" for name in names)
    with canvas("best-of-n", f"Mean score of the best of n answers, n from 1 to {len(rows)}. {spoken}.") as drawing:
        axes = drawing.axes
        x = [row["n"] for row in rows]
        for name in names:
            y, error = ([row[key] for row in rows] for key in (name, f"{name}_se"))
            low, high = ([a + sign * b for a, b in zip(y, error, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=COLORS[name], alpha=0.18, linewidth=0)
            axes.plot(x, y, color=COLORS[name], linewidth=1.6, marker="o", markersize=3, label=NAMES[name])
            if f"{name}_fitted" in rows[0]:
                fitted = [row[f"{name}_fitted"] for row in rows]
                axes.plot(x, fitted, color=COLORS[name], linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_title("score")
        axes.set_xlabel("n")
        if len(names) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.02), ncols=len(names))
    look = f"Chosen by the {NAMES[names[0]]}; where the other's falls behind, it is fooled. Dashed: fitted."
    return Chart("Best of n SFT answers", look, drawing.svg)
