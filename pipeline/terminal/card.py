"""What `align reward-card` shows in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.report.card_wording import Figures, headline, notes, scorers, subset_names, turning_points
from pipeline.terminal.blocks import blocks

ERRORS = 3  # shown; the page has more
EXCERPT = 200  # characters


def show_card(figures: Figures, console: Console | None = None) -> None:
    """Accuracy and baselines, confidence, subsets, best-of-n, and the worst errors."""
    console = console or Console()
    console.print(headline(figures), style="bold", highlight=False)
    console.print(f"{figures['prompts']:,} prompts, from {escape(figures['data'])}", highlight=False)
    console.print(_accuracy(figures))
    console.print(_confidence(figures))
    names = subset_names(figures)
    if names:
        console.print(_subsets(figures, names))
    if "best_of_n" in figures:
        console.print(_best_of_n(figures["best_of_n"]))
        console.print(turning_points(figures), highlight=False)
    console.print(_scores(figures))
    for note in notes(figures):
        console.print(f"• {escape(note)}", highlight=False)
    for error in figures["hardest"][:ERRORS]:
        console.print(_error(error))


def _accuracy(figures: Figures) -> Table:
    longer = "longer" if figures["longer_wins"] >= 0.5 else "shorter"
    table = Table("who orders the pairs", "right", "95 %", title="Right orders", title_justify="left")
    bounds = f"[{figures['accuracy_low']:.1%}, {figures['accuracy_high']:.1%}]"
    table.add_row("[bold]the model[/bold]", f"[bold]{figures['accuracy']:.1%}[/bold]", escape(bounds))
    table.add_row(f"“the {longer} wins”", f"{figures['length_baseline']:.1%}", "")
    table.add_row("“the base finds it likelier”", f"{figures['logprob_baseline']:.1%}", "")
    table.add_row("a coin", f"{figures['random_baseline']:.1%}", "")
    for key, value in figures.items():
        if key.startswith("agreement.") and key.endswith(".equal_orders"):
            other = key.split(".")[1]
            correlation = figures.get(f"agreement.{other}.correlation")
            told = "" if correlation is None else f"correlation {correlation:.2f}"
            table.add_row(f"orders as the {other} does", f"{value:.1%}", told)
    return table


def _confidence(figures: Figures) -> Table:
    table = Table("confidence", "as it is", "with the temperature", title="How sure it is", title_justify="left")
    after = [figures.get(f"{key}_after_temperature") for key in ("ece", "log_loss")]
    ece, loss = ("–" if value is None else f"{value:.3f}" for value in after)
    table.add_row("calibration error", f"{figures['ece']:.3f} (by chance {figures['ece_by_chance']:.3f})", ece)
    table.add_row("log-loss, nats a pair", f"{figures['log_loss']:.3f} (a coin .693)", loss)
    table.add_row("temperature", "1", f"{figures['temperature']:.2f}" if "temperature" in figures else "–")
    return table


def _subsets(figures: Figures, names: Sequence[str]) -> Group:
    table = Table(title=f"By {escape(str(figures['by']))}", title_justify="left")
    for head in ("subset", "pairs", "right", "95 %", "length", "base"):
        table.add_column(head, justify="left" if head == "subset" else "right")
    for name in names:
        one = {key: figures[f"subsets.{name}.{key}"] for key in ("n", "accuracy", "accuracy_low", "accuracy_high")}
        bounds = f"{one['accuracy_low']:.0%}–{one['accuracy_high']:.0%}"
        others = [f"{figures[f'subsets.{name}.{key}']:.0%}" for key in ("length_baseline", "logprob_baseline")]
        table.add_row(escape(name), f"{one['n']:,}", f"{one['accuracy']:.1%}", bounds, *others)
    means = f"{figures['subset_mean']:.1%}, weighted by pairs {figures['subset_mean_weighted']:.1%}"
    return Group(table, Text(f"Mean over subsets: {means}"))


def _best_of_n(rows: Sequence[Mapping[str, float]]) -> Table:
    names = scorers(rows[0])
    title = f"Best of n, chosen by the {names[0]}"
    heads = (f"{name}'s score ± error" for name in names)
    table = Table("n", "KL", *heads, title=title, title_justify="left")
    shown = [row for row in rows if row["n"] in (1, 2, 4, 8, 16, 32, 64) or row is rows[-1]]
    for row in shown:
        scores = [f"{row[name]:.2f} ± {row[f'{name}_se']:.2f}" for name in names]
        table.add_row(str(row["n"]), f"{row['kl']:.2f}", *scores)
    return table


def _scores(figures: Figures) -> Table:
    low, high = figures["score_bins"][0], figures["score_bins"][-1]
    table = Table("answers", f"scores from {low:.2f} to {high:.2f} deviations", title="Scores", title_justify="left")
    for name in ("chosen", "rejected"):
        table.add_row(name, blocks(figures[f"{name}_counts"]))
    return table


def _error(error: Mapping[str, Any]) -> Text:
    scores = f"chosen {error['chosen_score']:.2f}, rejected {error['rejected_score']:.2f}"
    text = Text(f"\nOrdered wrong: {scores} ({error['where']})\n", style="bold")
    for name in ("prompt", "chosen", "rejected"):
        shown = error[name] if len(error[name]) <= EXCERPT else f"{error[name][:EXCERPT]}…"
        text.append(f"{name}: ", style="dim")
        text.append(f"{shown}\n", style="")
    return text
