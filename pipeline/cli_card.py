"""`align reward-card`: what a run's reward model is worth, before anything is built on it."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pipeline.cli_look import RunPath

app = typer.Typer()
errors = Console(stderr=True)

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="Preference file or hub id, in any schema; default: the run's own test pairs"
    ),
]


@app.command("reward-card")
def reward_card(
    run_path: RunPath,
    data: Data = None,
    adapter: Annotated[Literal["reward", "judge"], typer.Option(help="Whose card.")] = "reward",
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column that names subsets; default: subset, else category, else failure."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many pairs.")] = None,
    split: Annotated[str, typer.Option(help="Of a hub data set.")] = "train",
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and answer together; default: reward.max_length.")
    ] = None,
    best_of: Annotated[
        int, typer.Option(metavar="N", min=0, help="Sample N SFT answers to up to 32 prompts for best-of-n curves.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on one line.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Where the page goes; default RUN/reward-card.html, none with --json."
        ),
    ] = None,
) -> None:
    """How good is the reward model? Accuracy beside baselines, calibration, subsets, and its hardest errors to read.

    `align reward-card runs/quickstart` looks at the pairs that the run kept apart. `align reward-card RUN pairs.jsonl
    --by subset` takes a benchmark's file: prompt, chosen, rejected, and a column that names subsets.
    docs/evaluation.md explains every figure.
    """
    from pipeline.stages.reward_card import examine

    figures = examine(
        run_path, data, adapter=adapter, by=by, limit=limit, split=split, max_length=max_length, best_of=best_of
    )
    if as_json:
        typer.echo(json.dumps(figures, ensure_ascii=False))
    else:
        from pipeline.terminal_card import show_card

        show_card(figures)
    if html is not None or not as_json:
        from pipeline.report.card import write_card

        page = write_card(figures, run_path, html or run_path / "reward-card.html")
        errors.print(f"page: {page}", highlight=False)
