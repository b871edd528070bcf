"""`align sweep`: one config, several values of some settings, one picture of where each led."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.arguments import AsJson, ConfigPath
from pipeline.cli.console import errors, resumable
from pipeline.config import Grid, load_grid

app = typer.Typer()

Settings = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY=[VALUES] [KEY=VALUE|FILE]...", help="a list varies a setting, the rest holds for all runs"
    ),
]


@app.command()
def sweep(
    config: ConfigPath,
    overrides: Settings,
    as_json: AsJson = False,
) -> None:
    """Run every combination of some settings, such as `align sweep configs/quickstart.yaml
    'policy.kl_coef=[0.02,0.05,0.2]'`, and draw score and win rate against the distance from SFT.

    A key that takes one value gets a list; several keys give every combination. Each is a run of its own in
    RUN_DIR/KEY=VALUE/. Stages that don't depend on what varies are done once and shared. The same command again goes on
    where it stopped. Leaves sweep.json, frontier.html and frontier.png in RUN_DIR.
    """
    grid = load_grid(config, overrides)
    from pipeline.report.html import write_report
    from pipeline.report.sweep import write_frontier
    from pipeline.stages.sweep import run_sweep

    done = []
    with resumable():
        for run in run_sweep(grid):
            done.append(run)
            if run.changed and not run.failed:
                write_report(run.path)
    page = write_frontier(grid.root)
    _show(grid, as_json)
    errors.print(f"frontier: {page}", highlight=False)
    if failed := [run for run in done if run.failed]:
        errors.print(f"{len(failed)} of {len(done)} runs can't go on; the same command tries them again", style="red")
        raise typer.Exit(2)


def _show(grid: Grid, as_json: bool) -> None:
    found: dict[str, Any] = json.loads((grid.root / "sweep.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table(title="Runs", title_justify="left")
    for head in (*grid.axes, "KL", "reward", "judge", "win rate over SFT", "shared"):
        table.add_column(head, justify="left" if head == "shared" else "right")
    for run in found["runs"]:
        table.add_row(*map(str, run["settings"].values()), *_figures(run["figures"]), ", ".join(run["shared"]))
    Console().print(table)


def _figures(figures: dict[str, Any]) -> list[str]:
    """KL, both scores and the win rate, a dash for what there isn't."""
    keys = ("evaluate.kl", "evaluate.reward_score.policy", "evaluate.judge_score.policy")
    numbers = [f"{figures[key]:.2f}" if key in figures else "–" for key in keys]
    rates = [figures.get(f"evaluate.win_rate.policy_vs_sft{end}") for end in ("", "_low", "_high")]
    told = "–" if None in rates else f"{rates[0]:.0%} [{rates[1]:.0%}, {rates[2]:.0%}]"
    return [*numbers, told.replace("[", "\\[")]
