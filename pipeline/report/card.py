"""reward-card.html: a reward model's card as one file, in the report's style."""

from pathlib import Path
from typing import Any

from pipeline.atomic import write_atomically
from pipeline.report import card_charts, card_tables
from pipeline.report.card_wording import NAMES, Figures, headline, notes, scorers, subset_names
from pipeline.report.html import fill
from pipeline.report.tables import Card
from pipeline.report.wording import number, percent

DRAWN = 16  # subsets at most in the chart; the table has them all


def write_card(figures: Figures, run_dir: Path, path: Path) -> Path:
    """Write the page of `align reward-card`'s figures; returns its path.

    Raises:
        OSError: it can't be written.
    """
    write_atomically(path, fill("card.html", content(figures, run_dir.resolve().name)))
    return path


def content(figures: Figures, name: str) -> dict[str, Any]:
    """Everything the template shows."""
    names = subset_names(figures)
    charts = card_charts.confidence(figures, [figures["adapter"]])
    if rows := figures.get("best_of_n"):
        charts.append(card_charts.best_of_n(rows, scorers(rows[0])))
    if 0 < len(names) <= DRAWN:
        charts.append(card_charts.subsets(figures, names))
    tables = [card_tables.orders(figures), card_tables.subsets(figures, names), card_tables.best_of_n(figures)]
    return {
        "title": f"{name}: the {NAMES[figures['adapter']]}’s card",
        "name": name,
        "adapter": NAMES[figures["adapter"]],
        "data": Path(figures["data"]).name,
        "prompts": f"{figures['prompts']:,}",
        "headline": headline(figures),
        "cautions": notes(figures),
        "cards": cards(figures),
        "charts": charts,
        "tables": [table for table in tables if table],
        "hardest": [
            error | {key: number(error[key]) for key in ("chosen_score", "rejected_score")}
            for error in figures["hardest"]
        ],
    }


def cards(figures: Figures) -> list[Card]:
    """The key figures."""
    right, bounds = card_tables.right(figures)
    found = [Card("Accuracy", right, bounds)]
    if "subset_mean" in figures:
        found.append(Card("Mean over subsets", percent(figures["subset_mean"], 1), "each counts once"))
    chance = f"by chance {number(figures['ece_by_chance'], 3)}"
    found.append(Card("Calibration error", number(figures["ece"], 3), chance))
    found.append(Card("Log-loss", number(figures["log_loss"], 3), "nats a pair; a coin 0.693"))
    if "temperature" in figures:
        after = f"with it, error {number(figures['ece_after_temperature'], 3)} on other prompts"
        found.append(Card("Best temperature", number(figures["temperature"]), after))
    for key, value in figures.items():
        if key.startswith("agreement.") and key.endswith(".equal_orders"):
            other = key.split(".")[1]
            correlation = number(figures.get(f"agreement.{other}.correlation"))
            found.append(Card(f"Orders as the {other} does", percent(value), f"correlation {correlation}"))
    error = figures["score_batch_error"]
    found.append(Card("Score in other company", f"{error:.0e}".replace("-", "−"), "moves by at most, deviations"))
    return found
