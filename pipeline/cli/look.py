"""Commands that look before and after: at the data, the memory, the machine, and at a batch that broke."""

import json
import re
from typing import Annotated

import typer

from pipeline.cli.arguments import AsJson, ConfigPath, Overrides, RunPath
from pipeline.config import ConfigError, LoraSection, load_config

app = typer.Typer()


@app.command()
def data(
    config: ConfigPath,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look at the data before training: schemas, lengths, bad rows, repeats, leaks between sets, length bias, template.

    Needs the model's tokenizer only. Rows that can't be used go to RUN_DIR/quarantine.jsonl, with line and reason.
    """
    loaded = load_config(config, overrides or ())
    from pipeline.stages.doctor import examine

    found = examine(loaded)
    if as_json:
        typer.echo(json.dumps(found.figures(), ensure_ascii=False))
        return
    from pipeline.terminal.data import show_diagnosis

    show_diagnosis(found)


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    device_memory: Annotated[str | None, typer.Option(help="What it must fit into, such as 24GiB or 8GB.")] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Measure the data's longest rows; else the config's limits.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How much memory each stage will need, and what to change if it doesn't fit. Loads no weights."""
    loaded = load_config(config, overrides or ())
    asked = None if device_memory is None else parse_memory(device_memory)
    from pipeline.stages import plan as planning
    from pipeline.stages.sizes import footprint, limits, measured

    longest = measured(loaded) if data else limits(loaded)
    plans = planning.plan(loaded, longest)
    if as_json:
        typer.echo(json.dumps({one.stage: round(one.peak / 1e6, 1) for one in plans}))
    else:
        from pipeline.terminal.machine import show_plan

        fixes = planning.remedies(loaded, longest)
        limit = planning.available(loaded) if asked is None else asked
        adapted = loaded.model_copy(update={"lora": loaded.lora or LoraSection()})
        show_plan(plans, limit=limit, fixes=fixes, ways=planning.schools(footprint(adapted)))
    if asked is not None and any(one.peak > asked for one in plans):
        raise typer.Exit(1)


@app.command()
def selftest(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Does the mathematics hold on this machine? Five checks with known answers, in a minute or less."""
    from pipeline.selftest import selftest as run_checks

    found = run_checks(device, dtype, visible=not as_json)
    if as_json:
        rows = {one.name: {"measured": one.measured, "limit": one.limit, "holds": one.holds} for one in found}
        typer.echo(json.dumps(rows, ensure_ascii=False))
    else:
        from pipeline.terminal.machine import show_checks

        show_checks(found)
    if not all(one.holds for one in found):
        raise typer.Exit(1)


@app.command()
def replay(run_path: RunPath) -> None:
    """Look at the batch on which policy optimisation met a NaN: each completion's figures, and the weights."""
    from pipeline.stages.replay import replay

    replay(run_path)


def parse_memory(text: str) -> float:
    """Bytes of "24GiB", "8GB" or "512MB".

    Raises:
        ConfigError: it is no such size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise ConfigError(f"--device-memory {text!r}: give a size such as 24GiB, 8GB or 512MB")
    unit = (match[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    return float(match[1]) * base ** " kmgt".index(unit[:1] or " ")
