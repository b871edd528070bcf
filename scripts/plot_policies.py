"""Learning curves of policy stages, side by side: score against completions, minutes and KL.

    python scripts/plot_policies.py "upper half=runs/u0,runs/u1" "all layers=runs/a0,runs/a1" --out FILE.png
    python scripts/plot_policies.py … --seconds "upper half=16.0" "all layers=29.5"

A group is a label and its run folders, seeds of the same settings: a line is their mean, smoothed over three steps, the
band their range. Scores are in standard deviations of SFT's scores, by each run's own reward model. `--seconds` sets
what a step costs, where the runs' own times say nothing (they shared a machine).
"""

import argparse
import json
from pathlib import Path

import yaml

from pipeline.rundir import read_jsonl

SMOOTH = 3  # steps
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#66ccee")  # Tol's bright scheme


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="LABEL=RUN[,RUN…]", help="run folders with a policy stage")
    parser.add_argument("--seconds", nargs="*", default=[], metavar="LABEL=SECONDS", help="seconds a step")
    parser.add_argument("--out", type=Path, required=True, help="picture, .png or .svg")
    parser.add_argument("--json", type=Path, help="write the curves here")
    arguments = parser.parse_args()
    seconds = {label: float(value) for label, value in (pair.split("=") for pair in arguments.seconds)}
    groups = {}
    for group in arguments.groups:
        label, _, folders = group.partition("=")
        runs = [curve(Path(folder)) for folder in folders.split(",")]
        groups[label] = join(runs, seconds.get(label))
    plot(groups, arguments.out)
    if arguments.json:
        arguments.json.write_text(json.dumps(groups, indent=2) + "\n", encoding="utf-8")


def curve(folder: Path) -> dict[str, list[float]]:
    """Score, KL, completions and minutes so far, by step."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["policy"]
    rows = [row for row in read_jsonl(folder / "policy" / "metrics.jsonl") if "objective/score" in row]
    batch = settings["prompts_per_step"] * settings["group_size"]
    return {
        "score": smoothed([row["objective/score"] for row in rows]),
        "kl": smoothed([row["objective/kl"] for row in rows]),
        "completions": [batch * (index + 1) for index in range(len(rows))],
        "seconds": [row["time/total"] for row in rows],
    }


def smoothed(values: list[float]) -> list[float]:
    """Means over the steps around each one."""
    half = SMOOTH // 2
    parts = (values[max(0, at - half) : at + half + 1] for at in range(len(values)))
    return [sum(part) / len(part) for part in parts]


def join(runs: list[dict[str, list[float]]], seconds: float | None) -> dict[str, list[float]]:
    """Mean and range of several seeds, over the steps that all of them took."""
    steps = range(min(len(run["score"]) for run in runs))
    columns = {name: [[run[name][at] for run in runs] for at in steps] for name in ("score", "kl", "seconds")}
    minutes, total = [], 0.0
    for spent in columns["seconds"]:
        total += (sum(spent) / len(spent) if seconds is None else seconds) / 60
        minutes.append(total)
    return {
        "score": [sum(values) / len(values) for values in columns["score"]],
        "low": [min(values) for values in columns["score"]],
        "high": [max(values) for values in columns["score"]],
        "kl": [sum(values) / len(values) for values in columns["kl"]],
        "completions": runs[0]["completions"][: len(steps)],
        "minutes": minutes,
    }


def plot(groups: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Three panels with one vertical axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {"completions": "completions", "minutes": "minutes", "kl": "KL from SFT, nats"}
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    for ax, (name, label) in zip(axes, panels.items(), strict=True):
        for (group, values), colour in zip(groups.items(), COLOURS, strict=False):
            if name != "kl":
                ax.fill_between(values[name], values["low"], values["high"], color=colour, alpha=0.15, linewidth=0)
            ax.plot(values[name], values["score"], color=colour, label=group)
        ax.set_xlabel(label)
        ax.set_xlim(left=0)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("reward score")
    axes[0].legend(frameon=False)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
