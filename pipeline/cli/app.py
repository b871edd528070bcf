"""`align`, the command line: reads a config, calls a stage, prints. Heavy imports wait until they are needed."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import __version__, processes
from pipeline.cli import agent, collect, deploy, evaluation, labels, look, sweep
from pipeline.cli.arguments import AsJson, ConfigPath, Overrides, RunPath
from pipeline.cli.console import errors, resumable
from pipeline.config import Config, ConfigError, dump_config, load_config
from pipeline.rundir import RunDir, RunError, summary

app = typer.Typer(
    name="align",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Align a small language model on one machine: supervised fine-tuning → reward model → policy "
        "optimisation → win rates.\n\n"
        "Start with `align run configs/quickstart.yaml`, then open `runs/quickstart/report.html`. Every setting can be "
        "changed on the command line: `align run configs/quickstart.yaml policy.algorithm=rloo run_dir=runs/rloo`."
    ),
)
app.add_typer(agent.app, name="agent")
app.add_typer(collect.app, name="collect")
app.add_typer(look.app)
app.add_typer(evaluation.app)
app.add_typer(sweep.app)
app.add_typer(deploy.app)

Force = Annotated[bool, typer.Option("--force", help="Repeat stages that are finished and unchanged.")]


def _run_stages(path: Path, overrides: Sequence[str] | None, stages: Sequence[str] | None, force: bool) -> Config:
    """The named stages; None = all that the config has."""
    config = load_config(path, overrides or ())
    if stages is None or "evaluate" in stages:
        labels.fresh(config)
    from pipeline.stages.chain import run_stages, stages_of

    with resumable():
        run_stages(config, stages or stages_of(config), force=force)
    return config


@app.command()
def run(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Run all stages and write the report. Finished, unchanged stages are skipped; a stopped one goes on."""
    loaded = _run_stages(config, overrides, None, force)
    assert loaded.run_dir is not None
    if processes.main():
        _write_report(Path(loaded.run_dir))


@app.command()
def sft(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Supervised fine-tuning: teach the base model the demonstrations."""
    _run_stages(config, overrides, ["sft"], force)


@app.command()
def reward(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Train the reward model and the judge on preference pairs. Needs a finished sft."""
    _run_stages(config, overrides, ["reward"], force)


@app.command()
def dpo(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Train the DPO baseline on the reward model's pairs. Needs a finished sft, and a dpo section (`dpo={}`)."""
    _run_stages(config, overrides, ["dpo"], force)


@app.command()
def policy(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Optimise the policy against the reward model. Needs finished sft and reward."""
    _run_stages(config, overrides, ["policy"], force)


@app.command()
def evaluate(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Compare base, SFT, policy (and DPO) on held-out prompts. Needs the stages before it.

    `judge=human` adds the people who compared the run's answers (`align collect`) to the judges.
    """
    _run_stages(config, overrides, ["evaluate"], force)


@app.command()
def report(
    config: ConfigPath,
    overrides: Overrides = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts",
            help="Without: no prompts and no answers, in report-without-texts.html, to pass on where the data may not.",
        ),
    ] = True,
) -> None:
    """Write report.html again from what the run folder holds. Needs no model."""
    loaded = load_config(config, overrides or ())
    assert loaded.run_dir is not None
    _write_report(Path(loaded.run_dir), texts=texts)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to.", show_default="here")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of the same names.")] = False,
) -> None:
    """Copy the project's own configs and data here, to start from: `align run configs/quickstart.yaml`."""
    from pipeline.starter import copy_into

    new = copy_into(folder, force=force)
    typer.echo(f"{len(new)} files in {folder / 'configs'} and {folder / 'data'}")
    typer.echo(f"next: {'' if folder == Path('.') else f'cd {folder} && '}align run configs/quickstart.yaml")


@app.command("config")
def show_config(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print the resolved configuration: defaults, file and overrides together."""
    typer.echo(dump_config(load_config(config, overrides or ())), nl=False)


@app.command("summary")
def show_summary(
    run_path: RunPath,
    as_json: AsJson = False,
) -> None:
    """Print a run's figures under `stage.metric` keys (docs/summary.md lists them)."""
    if not run_path.is_dir():
        raise RunError(f"no run folder at {run_path}")
    figures = summary(RunDir(run_path))
    if as_json:
        typer.echo(json.dumps(figures, ensure_ascii=False))
        return
    for name, value in figures.items():
        if not isinstance(value, list):
            typer.echo(f"{name:<44} {value:.4g}" if isinstance(value, float) else f"{name:<44} {value}")


@app.command()
def chat(
    run_path: RunPath,
    model: Annotated[
        str, typer.Option("--model", "--role", help="Who answers first: base, sft, dpo or policy.")
    ] = "policy",
    temperature: Annotated[float | None, typer.Option(help="0 = always the likeliest token.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
) -> None:
    """Talk to base, SFT, DPO or policy in the terminal. /base, /sft, /dpo, /policy switch; /all asks all; /quit."""
    from pipeline.chat import converse

    converse(run_path, model, temperature, max_new_tokens)


def _write_report(run_dir: Path, *, texts: bool = True) -> None:
    from pipeline.report.html import write_report

    path = write_report(run_dir, texts=texts)
    errors.print(f"report: {path}", highlight=False)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"align {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> Any:
    """Entry point. Errors that the user can mend are one message and exit code 2, without a stack trace."""
    try:
        return app(list(arguments) if arguments is not None else None, prog_name="align")
    except (ConfigError, RunError) as error:
        _fail(error)
    except (ValueError, FloatingPointError, OSError) as error:
        # Data, template and model errors are ValueErrors of their modules; anything else is a bug worth its trace.
        if os.environ.get("ALIGN_TRACEBACK") or type(error) is ValueError:
            raise
        _fail(error)


def _fail(error: Exception) -> None:
    who = "" if processes.main() else f"process {processes.rank()}: "
    errors.print(f"{who}error: {error}", style="red", highlight=False, markup=False)
    sys.exit(2)
