"""The tables of a reward model's card, on its own page and in a run's report."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.card_wording import NAMES, Figures, scorers, turning_points
from pipeline.report.tables import Table
from pipeline.report.wording import DASH, count, interval_apart, number, percent


def right(figures: Mapping[str, Any], prefix: str = "") -> tuple[str, str]:
    """An accuracy and its interval."""
    share, low, high = (figures[f"{prefix}accuracy{end}"] for end in ("", "_low", "_high"))
    return interval_apart(share, low, high, digits=1)


def orders(figures: Figures) -> Table:
    """The model beside what knows nothing of quality."""
    wins = "longer" if figures["longer_wins"] >= 0.5 else "shorter"
    rows = [[NAMES[figures["adapter"]], *right(figures)]]
    for label, key in (
        (f"“the {wins} wins”", "length_baseline"),
        ("“the base finds it likelier”", "logprob_baseline"),
        ("a coin", "random_baseline"),
    ):
        rows.append([label, percent(figures[key], 1), DASH])
    caption = f"Right orders of {count(figures['n'])} pairs to {count(figures['prompts'])} prompts."
    return Table(caption, ["Who orders", "Right", "95 % interval"], rows)


def subsets(figures: Figures, names: list[str]) -> Table | None:
    """Accuracy and baselines by subset."""
    if not names:
        return None
    rows = []
    for name in names:
        head = f"subsets.{name}."
        others = [percent(figures[f"{head}{key}"]) for key in ("length_baseline", "logprob_baseline")]
        error = number(figures[f"{head}ece"], 3)
        rows.append([name, count(figures[f"{head}n"]), *right(figures, head), *others, error])
    means = f"{percent(figures['subset_mean'], 1)}; weighted by pairs {percent(figures['subset_mean_weighted'], 1)}"
    heads = ["Subset", "Pairs", "Right", "95 % interval", "Length", "Base", "Calibration error"]
    return Table(f"By {figures['by']}. Mean over subsets {means}.", heads, rows)


def best_of_n(figures: Figures) -> Table | None:
    """Scores of the best of n answers, at powers of two and the last n."""
    rows = figures.get("best_of_n")
    if not rows:
        return None
    names = scorers(rows[0])
    shown = [row for row in rows if row["n"] & (row["n"] - 1) == 0 or row is rows[-1]]
    cells = [
        [str(row["n"]), number(row["kl"]), *(f"{number(row[one])} ± {number(row[f'{one}_se'])}" for one in names)]
        for row in shown
    ]
    heads = ["n", "KL at most", *(f"{NAMES[one]}'s score" for one in names)]
    caption = f"The best of n SFT answers, chosen by the {NAMES[names[0]]}. {turning_points(figures)}"
    return Table(caption.strip(), heads, cells)


def confidence(figures: Figures) -> Table | None:
    """How sure the reward stage's models are, and how sure they may be; None where it isn't known."""
    rows = []
    for name, prefix in (("reward", ""), ("judge", "judge_")):
        if f"{prefix}ece" in figures:
            errors = [number(figures[f"{prefix}{key}"], 3) for key in ("ece", "ece_by_chance", "log_loss")]
            rows.append([NAMES[name], *errors, number(figures.get(f"{prefix}temperature"))])
    caption = "How sure they are. A coin's log-loss is 0.693; a temperature above 1 means too sure."
    heads = ["Model", "Calibration error", "by chance", "Log-loss", "Temperature"]
    return Table(caption, heads, rows) if rows else None
