"""Commands about verdicts: those that came back from elsewhere, and answers to send there."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli_look import RunPath
from pipeline.rundir import RunDir, read_jsonl

app = typer.Typer()


@app.command()
def winrate(
    annotations: Annotated[
        Path, typer.Argument(metavar="ANNOTATIONS.json", help="verdicts as AlpacaEval writes them, one list of rows")
    ],
    system: Annotated[
        str | None,
        typer.Option(help="Whose win rate. Default: the first row's generator_2; the other is the baseline."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on one line.")] = False,
) -> None:
    """Win rate of AlpacaEval's verdicts, in percent, with standard error, interval, and the rate at equal length.

    A row needs `instruction`, `output_1`, `output_2`, `generator_1`, `generator_2` and `preference`: 1 where output_1
    is better, 2 where output_2 is, 1.5 or 0 for a tie, anything between for a probability, null for no verdict.
    """
    from pipeline.evaluation.alpaca import read_annotations
    from pipeline.evaluation.leaderboard import leaderboard

    found = leaderboard(read_annotations(annotations), system=system)
    if as_json:
        typer.echo(json.dumps(found.figures(), ensure_ascii=False))
        return
    from pipeline.terminal_evaluation import show_leaderboard

    show_leaderboard(found)


@app.command()
def outputs(
    run_path: RunPath,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where to write them.")],
    system: Annotated[str, typer.Option(help="Whose answers: base, sft, policy or best_of_n.")] = "policy",
    generator: Annotated[str | None, typer.Option(help="The name to give it. Default: RUN's name and SYSTEM.")] = None,
) -> None:
    """Write a run's answers as AlpacaEval's `model_outputs.json`, to be judged elsewhere. Needs a finished evaluate."""
    from pipeline.evaluation.alpaca import outputs_of, write_outputs

    run = RunDir(run_path)
    run.require("evaluate")
    rows = read_jsonl(run.path / "evaluate" / "samples.jsonl")
    answers = outputs_of(rows, system, generator or f"{run.path.resolve().name}-{system}")
    write_outputs(out, answers)
    typer.echo(f"{len(answers)} answers of {system} as {answers[0].generator}: {out}")
