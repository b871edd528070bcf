"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import completion

ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="YAML file, such as configs/quickstart.yaml", autocompletion=completion.configs
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE|FILE]...",
        help="run_dir=PATH, seed=N, section.key=value; values are YAML. A YAML file is laid over CONFIG",
        autocompletion=completion.settings,
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Run folder, such as runs/quickstart", autocompletion=completion.runs),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on one line.")]
