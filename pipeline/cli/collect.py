"""`align collect`: people compare two answers on a page; what they said so far."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli import labels as said
from pipeline.cli.arguments import AsJson, RunPath
from pipeline.cli.console import errors

if TYPE_CHECKING:
    from pipeline.collect.records import Label, Pair


class _ServesByDefault(TyperGroup):
    """`align collect RUN` is `align collect serve RUN`."""

    default = "serve"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [self.default, *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=_ServesByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "People compare two answers on a page of this machine, blind and in random order.\n\n"
        "`align collect RUN` serves the page (short for `align collect serve RUN`, whose `--help` has the options), "
        "`align collect status RUN` tells how far everybody is, `agreement` what the labels are worth, and `export` "
        "writes them as pairs to train on. docs/collecting.md has more."
    ),
)
app.add_typer(said.app)


@app.command()
def serve(
    run_path: RunPath,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="A_vs_B", help="Whose answers: any two of the evaluation's systems, or one of them twice."
        ),
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answers from a file (AlpacaEval's model_outputs.json) …")
    ] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="… and those to compare them with.")] = None,
    annotators: Annotated[str | None, typer.Option(metavar="NAMES", help="Who answers, such as anna,ben.")] = None,
    invite: Annotated[int | None, typer.Option(min=1, max=1000, help="So many guests, without names.")] = None,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs that everybody is asked.")] = 0.2,
    checks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Planted pairs with an obvious answer: a preference file.")
    ] = None,
    check_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of questions that are planted.")] = 0.1,
    guidelines: Annotated[Path | None, typer.Option(metavar="FILE.md", help="What to look at, in Markdown.")] = None,
    language: Annotated[str, typer.Option(help="Of the page: en or de.")] = "en",
    messages: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Sentences of your own, or another language.")
    ] = None,
    ask: Annotated[
        str, typer.Option(help="What is asked next: random, disagreement (of the run's reward models), or mix.")
    ] = "random",
    seed: Annotated[int, typer.Option(help="Decides the order and what overlaps.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0 = any free one.")] = 8484,
    host: Annotated[str, typer.Option(help="Who may come: this machine alone, or with --token 0.0.0.0.")] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(metavar="SECRET", envvar="ALIGN_COLLECT_TOKEN", help="From which all addresses are made."),
    ] = None,
) -> None:
    """Serve a page where people compare two answers, until Ctrl-C. Every answer is on disk before the next question.

    By default the answers of SFT and policy that a finished evaluation kept; no model is loaded. Prints an address for
    each annotator, and one for you, where you settle what they disagree on. Open it on the same machine, or through
    `ssh -L 8484:127.0.0.1:8484`. Stop it and start it again as you like: it goes on where it was.
    """
    from pipeline.collect.annotators import annotators as names_of
    from pipeline.collect.plan import Plan
    from pipeline.collect.serving import Look, Sitting
    from pipeline.collect.sources import checks_of

    plan = Plan(names_of(annotators, invite), overlap=overlap, check_rate=check_rate, seed=seed)
    pairs = _pairs(run_path, pair, outputs, against)
    planted = checks_of(checks) if checks is not None else []
    look = Look(language, messages, guidelines)
    sitting = Sitting(run_path, [*pairs, *planted], plan, ask=ask, host=host, port=port, token=token, look=look)
    before = len(sitting.store.labels())
    with suppress(KeyboardInterrupt):  # one that comes before the server listens to it
        for name, address in sitting.addresses().items():
            typer.echo(f"{name:<14} {address}")
        errors.print(f"{len(pairs)} pairs, {len(planted)} planted; Ctrl-C stops it, and loses nothing", highlight=False)
        sitting.serve()
    labels = sitting.store.labels()
    errors.print(f"{len(labels) - before} new verdicts, {len(labels)} in {sitting.store.path}", highlight=False)
    _show(labels)


def _pairs(run: Path, between: str | None, outputs: Path | None, against: Path | None) -> "list[Pair]":
    from pipeline.collect.errors import CollectError
    from pipeline.collect.sources import pairs_of_files, pairs_of_run

    if (outputs is None) != (against is None):
        raise CollectError("--outputs FILE and --against FILE belong together")
    if outputs is None or against is None:
        return pairs_of_run(run, between or "sft_vs_policy")
    if between is not None:
        raise CollectError("--pair takes answers from the run, --outputs from a file: give one of them")
    return pairs_of_files(outputs, against)


@app.command()
def status(run_path: RunPath, as_json: AsJson = False) -> None:
    """Tell how far everybody is: verdicts, attention checks, pace. Works beside a running server."""
    from pipeline.collect.adjudication import disputes
    from pipeline.collect.errors import CollectError
    from pipeline.collect.serving import standings
    from pipeline.collect.store import Store, labels_path

    path = labels_path(run_path)
    if not path.is_file():
        raise CollectError(f"{run_path} has no labels yet; `align collect {run_path}` collects some")
    store = Store(path)
    labels = store.labels()
    if not as_json:
        _show(labels)
        return
    found = disputes(labels)
    told = {
        "pairs": len(store.pairs()),
        "pairs_with_a_verdict": len({label.pair.id for label in labels if label.verdict != "skip"}),
        "disputes": len(found),
        "settled": sum(dispute.decision is not None for dispute in found),
        "annotators": [asdict(standing) for standing in standings(labels)],
    }
    typer.echo(json.dumps(told, ensure_ascii=False))


def _show(labels: "list[Label]") -> None:
    from pipeline.collect.serving import standings

    for one in standings(labels):
        checks = f", {one.checks_right} of {one.checks} checks right" if one.checks else ""
        typer.echo(
            f"{one.annotator:<14} {one.verdicts:>5} verdicts, {one.skipped} skipped{checks}, median "
            f"{one.median_seconds:.0f} s, last {one.latest[:16].replace('T', ' ')}"
        )
