"""Out of the run folder: `align export` and `align serve`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.arguments import AsJson, RunPath
from pipeline.cli.console import errors

if TYPE_CHECKING:
    from pipeline.deploy.export import Exported

app = typer.Typer()

Role = Annotated[Literal["policy", "sft"], typer.Option(help="Which of the run's models.")]


@app.command()
def export(
    run_path: RunPath,
    to: Annotated[
        Literal["merged", "adapter", "gguf", "hub"],
        typer.Option(
            help="One transformers folder, a PEFT folder, a GGUF file for llama.cpp, or the Hugging Face hub."
        ),
    ] = "merged",
    role: Role = "policy",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write.", show_default="RUN/export/ROLE-TO")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "q8_0"],
        typer.Option(help="Of merged weights; auto = as the base's own files. q8_0 for gguf only."),
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    repo: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="hub: where to.")] = None,
    what: Annotated[Literal["merged", "adapter"], typer.Option("--as", help="hub: what to send.")] = "merged",
    yes: Annotated[
        bool, typer.Option("--yes", help="hub: send it. Without, it only shows what would be sent.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="hub: for everybody to see.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="For the model card; default: what the base's own card says.")
    ] = None,
    data_licence: Annotated[str | None, typer.Option("--data-license", help="The data's, for the model card.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the trained model as a folder that other programs read, with a model card.

    A merged model is read back and held against adapter on base: prints how far log-probs of its own answers to
    held-out prompts are apart, and refuses a copy that isn't the trained model. `align export RUN --to hub --repo
    me/name` shows what would be sent; `--yes` sends it, privately unless `--public`. docs/deploying.md has more.
    """
    from pipeline.deploy.card import Licences
    from pipeline.deploy.errors import DeployError
    from pipeline.deploy.export import export as write

    licences = Licences(licence, data_licence)
    if to != "hub":
        if repo is not None or yes or public:
            raise DeployError("--repo, --yes and --public are for --to hub")
        done = write(run_path, to, role=role, out=out, dtype=dtype, force=force, licences=licences)
        _tell(done, as_json)
        return
    from pipeline.deploy.hub import check_adapter, check_repo, upload
    from pipeline.stages.inputs import open_run

    where = check_repo(repo)
    if what == "adapter":
        check_adapter(open_run(run_path)[0].model.name)
    done = write(run_path, what, role=role, out=out, dtype=dtype, force=force, reuse=not force, licences=licences)
    _tell(done, as_json)
    _show_upload(done, where, public)
    if not yes:
        errors.print("nothing was sent; the same command with --yes sends it", style="yellow")
        return
    typer.echo(upload(done.folder, where, private=not public))


def _tell(done: "Exported", as_json: bool) -> None:
    size = sum(size for _, size in done.files) / 1e6
    if as_json:
        fidelity = asdict(done.fidelity) if done.fidelity else None
        told = {"folder": str(done.folder), "form": done.form, "role": done.role, "dtype": done.dtype}
        typer.echo(json.dumps(told | {"megabytes": round(size, 1), "fidelity": fidelity}))
        return
    state = "" if done.fresh else " (there already)"
    typer.echo(f"{done.role}, {done.form}, {done.dtype}, {size:,.1f} MB: {done.folder}{state}")
    if (found := done.fidelity) is not None:
        typer.echo(
            f"|Δ log-prob| against adapter on base: mean {found.mean:.2g}, max {found.max:.2g} nats over "
            f"{found.tokens} tokens of answers to {found.prompts} held-out prompts; the adapter itself moves them by "
            f"{found.adapter_effect:.2g}"
        )


def _show_upload(done: "Exported", repo: str, public: bool) -> None:
    errors.print(f"to {repo}, {'public' if public else 'private'}:", highlight=False)
    for name, size in done.files:
        errors.print(f"  {name}  {size / 1e6:,.2f} MB", highlight=False, markup=False)


@app.command()
def serve(
    run_path: RunPath,
    role: Role = "policy",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")] = 8000,
    host: Annotated[str, typer.Option(help="Who may ask: this machine alone, or 0.0.0.0 = everybody.")] = "127.0.0.1",
    engine: Annotated[
        Literal["auto", "vllm", "transformers"], typer.Option(help="auto = vLLM where installed, else transformers.")
    ] = "auto",
    show: Annotated[bool, typer.Option("--print", help="Show the command, start nothing.")] = False,
) -> None:
    """Answer OpenAI's chat API at http://HOST:PORT/v1 with the trained model, until Ctrl-C.

    vLLM puts the adapter on the base; `transformers serve` gets a merged copy, which is made first where there is none.
    Both keep the run's temperature and longest answer unless a request says otherwise. Requests name the model by its
    role: `policy` or `sft`.
    """
    from pipeline.deploy.serve import choose_engine, command, prepare, start

    chosen = choose_engine(engine)
    if not show:
        prepare(run_path, role, chosen)
    line = command(run_path, role, chosen, host=host, port=port)
    if show:
        typer.echo(str(line))
        return
    errors.print(f"model {role!r} at http://{host}:{port}/v1 (Ctrl-C stops it)", highlight=False)
    start(line)
