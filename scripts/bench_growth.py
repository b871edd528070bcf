"""How cost grows: seconds and peak memory of a policy step against completions, their length, group size and roles.

    python scripts/bench_growth.py --json FILE --plot FILE.png
    python scripts/bench_growth.py --only roles --device cuda

Every point is a process of its own: one step to warm up, then the measured ones. Completions have a fixed length; the
base is SmolLM2-135M with adapters on the upper half, unless a point says otherwise. Printed: seconds and MB, what each
completion costs, and the exponent k of cost ~ n^k between an axis' last two points.
"""

import argparse
import json
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_policy import worker
from beside.turns import print_table
from beside.workers import in_turns
from rich.table import Table

from pipeline.progress import bar

UPPER = "ours, upper half and shared trunk"


@dataclass(frozen=True)
class Axis:
    """What grows: its points by label, each a comparison and side of bench_policy.py with settings."""

    label: str
    points: dict[str, tuple[str, str, list[str]]]


def ppo(**changes: int) -> tuple[str, str, list[str]]:
    """One epoch of PPO: 16 prompts, a completion of 32 tokens each, unless changed."""
    shape = {"prompts_per_step": 16, "group_size": 1, "epochs": 1} | changes
    tokens = shape.pop("max_new_tokens", 32)
    return "ppo", UPPER, [f"policy.{k}={v}" for k, v in shape.items()] + [f"policy.sampling.max_new_tokens={tokens}"]


AXES = {
    "completions": Axis("prompts, one completion each", {f"{n}": ppo(prompts_per_step=n) for n in (8, 16, 32, 64)}),
    "length": Axis("tokens a completion, 16 of them", {f"{n}": ppo(max_new_tokens=n) for n in (16, 32, 64, 128)}),
    "group": Axis(
        "completions a prompt, 4 prompts", {f"{n}": ppo(prompts_per_step=4, group_size=n) for n in (2, 4, 8, 16)}
    ),
    "roles": Axis(
        "roles on the base, all layers; 16 completions",
        {
            "3: RLOO": ("rloo", "ours", ["policy.prompts_per_step=4", "policy.epochs=1"]),
            "4: PPO, critic on the policy's trunk": ("ppo", "ours, shared trunk", ppo()[2]),
            "4: PPO, critic's own adapter": ("ppo", "ours", ppo()[2]),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE for all points, as for `align run`")
    parser.add_argument("--only", nargs="+", choices=AXES, help="these axes alone")
    parser.add_argument("--iterations", type=int, default=3, help="measured steps a point, after one to warm up")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="draw seconds and memory into this file")
    arguments = parser.parse_args()
    names = arguments.only or list(AXES)
    results: dict[str, dict[str, Any]] = {}
    with bar("steps", sum(len(AXES[name].points) for name in names) * (arguments.iterations + 1)) as progress:
        for name in names:
            results[name] = {}
            for label, (case, side, settings) in AXES[name].points.items():
                one = worker(case, side, arguments.device, [*settings, *arguments.overrides])
                (result,) = in_turns([one], arguments.iterations, progress).values()
                results[name][label] = result
    for name, points in results.items():
        print_table(table(AXES[name].label, points))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(results, arguments.plot)


def exponent(before: tuple[float, float], after: tuple[float, float]) -> float:
    """k of cost ~ n^k through two points (n, cost)."""
    return math.log(after[1] / before[1]) / math.log(after[0] / before[0])


def table(label: str, points: dict[str, Any]) -> Table:
    """A row a point."""
    shown = Table(label, "s a step", "ms a token", "grows as", "peak, MB", "grows as")
    last: tuple[float, float, float] | None = None
    for value, result in points.items():
        seconds, tokens, peak = result["median"]["total"], result["median"]["tokens"], result["memory"]["peak_mb"]
        growth = ["", ""]
        if value.isdigit():
            if last is not None:
                growth = [
                    f"n^{exponent((last[0], old), (int(value), new)):.2f}"
                    for old, new in ((last[1], seconds), (last[2], peak))
                ]
            last = (int(value), seconds, peak)
        row = [f"{seconds:.2f}", f"{1000 * seconds / tokens:.1f}", growth[0], f"{peak:,.0f}", growth[1]]
        shown.add_row(value, *row)
    return shown


def plot(results: dict[str, dict[str, Any]], file: Path) -> None:
    """Seconds above, memory below, an axis a column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(results), figsize=(3.2 * len(results), 5.2), layout="constrained", squeeze=False, sharey="row"
    )
    for column, (name, points) in enumerate(results.items()):
        seconds = [result["median"]["total"] for result in points.values()]
        peaks = [result["memory"]["peak_mb"] / 1000 for result in points.values()]
        for row, (values, colour) in enumerate(((seconds, "#4477aa"), (peaks, "#aa3377"))):
            ax = axes[row][column]
            if all(label.isdigit() for label in points):
                ax.plot([int(label) for label in points], values, "o-", color=colour)
                ax.set_xticks([0, *(int(label) for label in points)])
            else:
                ax.bar([textwrap.fill(label, 14) for label in points], values, color=colour, width=0.6)
                ax.tick_params(axis="x", labelsize=7)
            ax.spines[["top", "right"]].set_visible(False)
        axes[1][column].set_xlabel(AXES[name].label, fontsize=9)
    axes[0][0].set_ylabel("seconds a step")
    axes[1][0].set_ylabel("peak memory, GB")
    axes[0][0].set_ylim(bottom=0)
    axes[1][0].set_ylim(bottom=0)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
