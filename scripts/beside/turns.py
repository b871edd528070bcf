"""A benchmark's sides as processes of their own, in turns, and what is told of them."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, load_config
from pipeline.machine import peak_rss_mb
from pipeline.progress import bar
from pipeline.rundir import StageDir

WIDTH = 150  # columns that the widest table needs
Side = Callable[[Config, dict[str, list[Any]]], dict[str, Any]]


def both_halves(ours: Side, theirs: Side) -> dict[str, tuple[list[str], Side]]:
    """The sides of `compare`: ours with adapters on all layers, and on the upper half only, and theirs."""
    return {"ours": ([], ours), "ours, upper half": (["lora.layers=upper"], ours), "trl": ([], theirs)}


def compare(
    doc: str | None,
    overrides: list[str],
    encode: Callable[[Config, int | None], dict[str, list[Any]]],
    sides: dict[str, tuple[list[str], Side]],
    columns: dict[str, Callable[[dict[str, Any]], str]],
) -> None:
    """The whole benchmark: read the command line, run every side in turns, print a table.

    Args:
        overrides: settings of all sides.
        encode: the work, as JSON, made once: config and limit → lists by name.
        sides: name → (settings of its own, what to run); the last is the one compared with.
        columns: what the table shows besides speed and memory.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for `align run`")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side, interleaved")
    parser.add_argument("--limit", type=int, help="train on this many rows only: for speed, not for quality")
    parser.add_argument("--only", nargs="+", choices=sides, help="these sides alone")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = [*overrides, f"model.device={arguments.device}", "logging.progress=false"]
    if arguments.side:
        own, run = sides[arguments.side]
        config = load_config(arguments.config, [*settings, *own, *arguments.overrides])
        figures = run(config, json.loads(arguments.work.read_text(encoding="utf-8")))
        print(json.dumps(figures | memory(arguments.device)))
        return
    chosen = arguments.only or list(sides)
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in chosen}
    with (
        tempfile.TemporaryDirectory() as folder,
        bar("runs", arguments.repeats * len(chosen), visible=True) as progress,
    ):
        file = Path(folder) / "work.json"
        config = load_config(arguments.config, [*settings, *arguments.overrides])
        file.write_text(json.dumps(encode(config, arguments.limit)), encoding="utf-8")
        for _ in range(arguments.repeats):
            for side in chosen:
                command = [sys.executable, *sys.argv, "--side", side, "--work", str(file)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
                progress.advance(figures={"tokens/s": round(rows[side][-1]["tokens_per_second"])})
    show(rows, columns)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def timed(stage: str, run: Callable[[StageDir, Checkpoints], Any]) -> tuple[Any, float]:
    """What `run` gives, in a stage's folder that is thrown away, and how many seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        out = StageDir(Path(folder) / stage, stage, "")
        checkpoints = Checkpoints(out)
        start = time.perf_counter()
        return run(out, checkpoints), time.perf_counter() - start


def memory(device: str) -> dict[str, float]:
    """Peaks of this process: resident, allocated on the GPU, and as `peak_mb` the one that is scarce."""
    resident = peak_rss_mb()
    if device == "cpu":
        return {"peak_rss_mb": resident, "peak_mb": resident}
    import torch

    allocated = torch.cuda.max_memory_allocated() / 1e6
    return {"peak_rss_mb": resident, "peak_gpu_mb": allocated, "peak_mb": allocated}


def print_table(table: Table) -> None:
    """At its full width: a log has none of its own."""
    Console(width=max(Console().width, WIDTH)).print(table)


def show(rows: dict[str, list[dict[str, Any]]], columns: dict[str, Callable[[dict[str, Any]], str]]) -> None:
    table = Table("", *columns, "tokens/s", "spread", "faster", "seconds", "peak, MB", "of the last's")
    middle = {
        side: {key: statistics.median(run[key] for run in runs) for key in ("tokens_per_second", "seconds", "peak_mb")}
        for side, runs in rows.items()
    }
    base = list(middle.values())[-1]
    for side, runs in rows.items():
        speeds = [run["tokens_per_second"] for run in runs]
        table.add_row(
            side,
            *(tell(runs[0]) for tell in columns.values()),
            f"{middle[side]['tokens_per_second']:.0f}",
            f"{min(speeds):.0f}–{max(speeds):.0f}",
            f"{middle[side]['tokens_per_second'] / base['tokens_per_second']:.2f}×",
            f"{middle[side]['seconds']:.1f}",
            f"{middle[side]['peak_mb']:.0f}",
            f"{middle[side]['peak_mb'] / base['peak_mb']:.2f}×",
        )
    print_table(table)
