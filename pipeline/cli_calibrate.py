"""`align judge`: may a judge be trusted? Ask it about pairs whose answer is known."""

import json
from typing import Annotated

import typer

from pipeline.cli_look import Overrides, RunPath

app = typer.Typer()

Name = Annotated[
    str | None,
    typer.Option("--judge", help="judge, reward, judge_2, … or one of evaluate.judges; else the held-out one."),
]


@app.command("judge")
def calibrate(
    run_path: RunPath,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled pairs: JSONL, CSV, Parquet or a hub id (docs/data.md)")
    ],
    overrides: Overrides = None,
    name: Name = None,
    schema: Annotated[str, typer.Option("--format", help="How rows are written; auto tells by the columns.")] = "auto",
    limit: Annotated[int | None, typer.Option(help="The first so many pairs: some judges cost money.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave them out instead of stopping.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on one line.")] = False,
) -> None:
    """May this judge be trusted? Asks one of a run's judges about labelled pairs, and each chosen one against itself.

    Shows how often it agrees with the labels (a tie counts half), whether it looks at places instead of answers,
    whether it likes length more than the labels do, and what couldn't be made out. Overrides set up judges that the run
    hadn't: `align judge RUN pairs.jsonl evaluate.judges.long='{kind: length, prefer: longer}' --judge long`.
    """
    from pipeline.stages.calibrate import calibrate_judge

    found = calibrate_judge(
        run_path,
        data,
        name,
        schema=schema,
        limit=limit,
        skip_bad_rows=skip_bad_rows,
        overrides=overrides or (),
    )
    if as_json:
        told = {"judge": found.judge, "kind": found.kind, "source": found.source, **found.figures}
        known = {} if found.trained_on is None else {"trained_on": found.trained_on}
        typer.echo(json.dumps(told | known, ensure_ascii=False))
        return
    from pipeline.terminal import show_calibration

    show_calibration(found)
