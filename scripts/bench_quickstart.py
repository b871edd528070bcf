"""The quickstart's figures: PPO over several seeds, then other algorithms on the first seed's SFT and reward models.

    python scripts/bench_quickstart.py --seeds 0 1 2 --algorithms rloo grpo reinforce --out runs/bench

Prints the tables of docs/benchmarks.md. Finished stages are skipped, so a second call only prints. Two
cores take about half an hour a seed and ten minutes an algorithm.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.rundir import RunDir, summary

CONFIG = "configs/quickstart.yaml"
SHARED = ("sft", "reward")  # stages that don't depend on the algorithm
PAIRS = ("policy_vs_sft", "sft_vs_base", "policy_vs_best_of_n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE for every run, as for `align run`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="*", default=["rloo", "grpo", "reinforce"])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    first, *others = arguments.seeds
    runs = {f"ppo, seed {first}": run(arguments.out / f"ppo-{first}", [f"seed={first}", *arguments.overrides])}
    for seed in others:
        own = [f"seed={seed}", "evaluate.best_of=1"]
        runs[f"ppo, seed {seed}"] = run(arguments.out / f"ppo-{seed}", [*own, *arguments.overrides])
    for algorithm in arguments.algorithms:
        folder = arguments.out / f"{algorithm}-{first}"
        for stage in SHARED:
            if not (folder / stage).exists():
                shutil.copytree(arguments.out / f"ppo-{first}" / stage, folder / stage)
        own = [f"seed={first}", f"policy.algorithm={algorithm}", "evaluate.best_of=1"]
        runs[f"{algorithm}, seed {first}"] = run(folder, [*own, *arguments.overrides])
    print(stages(runs), end="\n\n")
    print(outcomes(runs))
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def run(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """One run, or what is missing of it; its figures as `align summary --json` prints them."""
    command = [sys.executable, "-m", "pipeline.cli", "run", CONFIG, f"run_dir={folder}", *overrides]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return summary(RunDir(folder))


def stages(runs: dict[str, dict[str, Any]]) -> str:
    """Minutes, memory and the reward models."""
    lines = [
        "| run | reward accuracy | judge | by length | policy: s a step | peak, MB | whole run, min |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in runs.items():
        lines.append(
            f"| {name} | {share(figures, 'reward.accuracy')} | {share(figures, 'reward.judge_accuracy')} "
            f"| {three(figures['reward.length_baseline'])} | {figures['policy.seconds_per_iteration']:.1f} "
            f"| {figures['policy.peak_rss_mb']:,.0f} | {figures['total_seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def outcomes(runs: dict[str, dict[str, Any]]) -> str:
    """Win rates, and what changed besides."""
    lines = [
        "| run | policy over SFT | SFT over base | policy over best of 4 | KL | tokens, SFT → policy | EOS |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in runs.items():
        rates = (share(figures, f"evaluate.win_rate.{pair}") for pair in PAIRS)
        tokens = " → ".join(f"{figures[f'evaluate.mean_tokens.{system}']:.1f}" for system in ("sft", "policy"))
        lines.append(
            f"| {name} | {' | '.join(rates)} | {figures['evaluate.kl']:.1f} | {tokens} "
            f"| {100 * figures['evaluate.eos_rate.policy']:.1f} % |"
        )
    return "\n".join(lines)


def share(figures: dict[str, Any], key: str) -> str:
    """'.758 [.701, .807]', or nothing where it wasn't measured."""
    if key not in figures:
        return ""
    return f"{three(figures[key])} [{three(figures[f'{key}_low'])}, {three(figures[f'{key}_high'])}]"


def three(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
