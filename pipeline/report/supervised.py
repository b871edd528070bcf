"""What supervised fine-tuning read and learned, as a table beside its curve."""

from pipeline.report.load import Run
from pipeline.report.tables import Table
from pipeline.report.wording import count, number, percent


def learned(run: Run) -> Table | None:
    """Loss before and after, epochs, rows and tokens of the SFT stage."""
    metrics = run["sft"].metrics
    figures = {
        "loss_before": ("Held-out loss before training", lambda loss: number(loss, 3)),
        "loss": ("Held-out loss at the best epoch", lambda loss: number(loss, 3)),
        "best_epoch": ("Best epoch", count),
        "steps": ("Steps", count),
        "train_rows": ("Demonstrations to learn from", count),
        "validation_rows": ("Demonstrations held out", count),
        "supervised_tokens": ("Tokens learned from", count),
        "truncated_away": ("No answer left once cut to sft.max_length", percent),
    }
    rows = [[label, told(metrics[key])] for key, (label, told) in figures.items() if key in metrics]
    return Table("What SFT read and learned. Loss in nats per token.", ["Figure", "Value"], rows) if rows else None
