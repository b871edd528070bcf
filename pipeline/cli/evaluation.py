"""Who is better, and who says so: runs compared, judges and reward models examined, AlpacaEval's files."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.arguments import AsJson, Overrides, RunPath
from pipeline.cli.console import errors
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
    as_json: AsJson = False,
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
    from pipeline.terminal.leaderboard import show_leaderboard

    show_leaderboard(found)


@app.command()
def outputs(
    run_path: RunPath,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where to write them.")],
    system: Annotated[str, typer.Option(help="Whose answers: base, sft, policy, best_of_n or dpo.")] = "policy",
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
    as_json: AsJson = False,
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
    from pipeline.terminal.judge import show_calibration

    show_calibration(found)


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
    as_json: AsJson = False,
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
        from pipeline.terminal.card import show_card

        show_card(figures)
    if html is not None or not as_json:
        from pipeline.report.card import write_card

        page = write_card(figures, run_path, html or run_path / "reward-card.html")
        errors.print(f"page: {page}", highlight=False)


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
