"""What the stages that learn from rows alone read and learned, as tables beside their curves."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.report.load import Run
from pipeline.report.tables import Table
from pipeline.report.wording import count, number, percent

Told = Mapping[str, tuple[str, Callable[[Any], str]]]  # by key: the label, and how the figure is written
SFT: Told = {
    "loss_before": ("Held-out loss before training", lambda loss: number(loss, 3)),
    "loss": ("Held-out loss at the best epoch", lambda loss: number(loss, 3)),
    "best_epoch": ("Best epoch", count),
    "steps": ("Steps", count),
    "train_rows": ("Demonstrations to learn from", count),
    "validation_rows": ("Demonstrations held out", count),
    "supervised_tokens": ("Tokens learned from", count),
    "truncated_away": ("No answer left once cut to sft.max_length", percent),
}
DPO: Told = {
    "loss_before": ("Held-out loss before training", lambda loss: number(loss, 3)),
    "loss": ("Held-out loss at the best epoch", lambda loss: number(loss, 3)),
    "accuracy": ("Held-out pairs that the implied reward orders right", percent),
    "margin": ("Mean margin of the implied reward, nats", lambda margin: number(margin, 3)),
    "best_epoch": ("Best epoch", count),
    "steps": ("Steps", count),
    "train_pairs": ("Pairs to learn from", count),
    "validation_pairs": ("Pairs held out", count),
}


def sft(run: Run) -> Table | None:
    """Loss before and after, epochs, rows and tokens."""
    return _table("What SFT read and learned. Loss in nats per token.", SFT, run["sft"].metrics)


def dpo(run: Run) -> Table | None:
    """Loss before and after, how the implied reward orders held-out pairs, epochs and pairs."""
    caption = "What DPO learned from the reward model's pairs. Loss in nats per pair; implied reward: β log π/π(SFT)."
    return _table(caption, DPO, run["dpo"].metrics)


def _table(caption: str, figures: Told, metrics: Mapping[str, Any]) -> Table | None:
    rows = [[label, told(metrics[key])] for key, (label, told) in figures.items() if key in metrics]
    return Table(caption, ["Figure", "Value"], rows) if rows else None
