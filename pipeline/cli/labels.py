"""What people's labels are worth, and their way into the next run."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline import processes
from pipeline.cli.arguments import AsJson, RunPath
from pipeline.cli.console import errors
from pipeline.config import Config, HumanJudgeConfig

app = typer.Typer()


def fresh(config: Config) -> None:
    """Export what people have said of the run's own answers, for judges that read it."""
    judges = config.evaluate.judges.values()
    if config.run_dir is not None and any(isinstance(one, HumanJudgeConfig) and one.labels is None for one in judges):
        from pipeline.collect.export import refresh

        if processes.main():
            refresh(Path(config.run_dir))


@app.command()
def agreement(run_path: RunPath, as_json: AsJson = False) -> None:
    """Do people agree, pay attention, and look at answers rather than at places or length?

    Raw agreement, Cohen's and Fleiss' κ, Krippendorff's α with 95 % intervals over pairs; for each person the planted
    pairs that were answered rightly, the share of answers chosen that stood first, of the longer ones, and the median
    seconds. docs/collecting.md explains every figure.
    """
    from pipeline.collect.export import labels_of
    from pipeline.collect.quality import quality

    figures = quality(labels_of(run_path))
    if as_json:
        typer.echo(json.dumps(figures, ensure_ascii=False))
        return
    from pipeline.terminal.agreement import show_quality

    show_quality(figures)


@app.command()
def export(
    run_path: RunPath,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Where the pairs go.", show_default="RUN/collect/preferences.jsonl"),
    ] = None,
    merge: Annotated[
        Literal["majority", "all"],
        typer.Option(help="One row a pair, by more than half of its labels, or one a label."),
    ] = "majority",
    as_json: AsJson = False,
) -> None:
    """Write the labels as pairs that `align run` trains on: `align run CONFIG reward.data.source=FILE.jsonl`.

    The margin is a third of the strength; `reward.margins=true` uses it. Ties, "both bad" and skips are no pairs: they
    are counted here and stand, with every other label, in FILE.labels.jsonl beside it, which judges of kind human read;
    FILE.summary.json holds what `align collect agreement` shows. An adjudicator's decision wins.
    """
    from pipeline.collect.export import default_path, labels_of, write
    from pipeline.collect.export import export as exported

    found = exported(labels_of(run_path), merge)
    path = to or default_path(run_path)
    write(found, path)
    if as_json:
        typer.echo(json.dumps({"file": str(path), **found.summary}, ensure_ascii=False))
        return
    told = found.summary
    typer.echo(f"{told['rows']} pairs from {told['quality']['labels']} labels: {path}")
    left_out = {
        "ties": "ties",
        "both_bad": "both bad",
        "skips": "skips",
        "without_majority": "pairs without a majority",
        "overruled": "labels overruled by the adjudicator",
        "unusable": "with an empty answer or two equal ones",
    }
    if parts := [f"{told[key]} {words}" for key, words in left_out.items() if told[key]]:
        errors.print(f"not among them: {', '.join(parts)}", highlight=False)
