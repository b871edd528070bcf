"""`align compare`: runs side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders, such as runs/ppo runs/rloo")],
    out: Annotated[Path | None, typer.Option(help="The page to write.", show_default="compare.html")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The figures as one JSON object on one line; no page unless --out names one.")
    ] = False,
) -> None:
    """Put runs side by side in one page: figures, differing settings, curves, and answers to the same prompts.

    Says which policy wins most against SFT where intervals and measurements allow it, and else what stands against it:
    other evaluation prompts, another judge, another SFT model, other sampling. Runs needn't be finished.

    `align compare runs/ppo runs/rloo runs/grpo --out algorithms.html`
    """
    from pipeline.report.compare import compared_figures, write_comparison

    if as_json:
        typer.echo(json.dumps(compared_figures(runs), ensure_ascii=False))
    if out is not None or not as_json:
        page = out or Path("compare.html")
        headline = write_comparison(runs, page)
        if not as_json:
            typer.echo(headline)
        typer.echo(f"comparison: {page}", err=True)
