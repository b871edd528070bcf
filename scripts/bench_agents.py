"""Classic agents: the table of docs/benchmarks.md, and speed beside Stable-Baselines3.

    python scripts/bench_agents.py table --seeds 5 --out runs/agents
    python scripts/bench_agents.py figures --seeds 5 --out runs/agents --into docs/agents
    python scripts/bench_agents.py speed --rounds 3 --json FILE      (needs pip install -e '.[sb3]')

`table` trains every pair below with its config in configs/agents/ and prints mean returns over 100 evaluation episodes;
`figures` draws the pictures of docs/agents.md. Both skip finished seeds, so a second call only prints. `speed` trains
PPO, A2C and DQN on CartPole-v1, and DQN on Pong, in turns with Stable-Baselines3: same hyper-parameters, one thread, a
process for each run.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

# (task, algorithm, what the mean return should reach)
PAIRS = (
    ("CartPole-v1", "ppo", 495.0),
    ("CartPole-v1", "dqn", 490.0),
    ("CartPole-v1", "a2c", 490.0),
    ("CartPole-v1", "reinforce", 450.0),
    ("Acrobot-v1", "ppo", -85.0),
    ("Acrobot-v1", "dqn", -85.0),
    ("MountainCar-v0", "dqn", -110.0),
    ("LunarLander-v3", "ppo", 200.0),
    ("LunarLander-v3", "dqn", 150.0),
    ("Pendulum-v1", "ppo", -200.0),
    ("FrozenLake-v1", "q_learning", 0.73),
    ("FrozenLake8x8-v1", "q_learning", 0.80),
    ("Taxi-v3", "q_learning", 7.8),
    ("CliffWalking-v1", "q_learning", -13.0),
    ("MinAtar/Breakout-v1", "dqn", 8.0),
)
# figure: task, and what it compares: (algorithm, settings…) by label
FIGURES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "cartpole": ("CartPole-v1", {"PPO": ("ppo",), "A2C": ("a2c",), "DQN": ("dqn",), "REINFORCE": ("reinforce",)}),
    "cliff": ("CliffWalking-v1", {"Q-learning": ("q_learning",), "SARSA": ("sarsa",)}),
    "dqn": (
        "CartPole-v1",
        {
            "DQN": ("dqn",),
            "without replay": ("dqn", "replay=false"),
            "without target network": ("dqn", "target_network=false"),
        },
    ),
    "reinforce": ("CartPole-v1", {"learned baseline": ("reinforce",), "no baseline": ("reinforce", "baseline=none")}),
    "a2c": ("CartPole-v1", {f"horizon {n}": ("a2c", f"horizon={n}") for n in (1, 16, 128)}),
    "ppo": (
        "CartPole-v1",
        {
            "20 passes": ("ppo",),
            "20 passes, no clip": ("ppo", "clip=1000", "clip_schedule=constant"),
            "1 pass": ("ppo", "epochs=1"),
        },
    ),
}
CARTPOLE, PONG = "CartPole-v1", "ALE/Pong-v5"


class Speed(NamedTuple):
    """What is timed."""

    algorithm: str
    task: str
    steps: int  # environment steps
    overrides: tuple[str, ...] = ()  # settings that differ from its config
    episodes: int = 30  # of the evaluation beside the speed


STEP_BY_STEP = ("train_every=1", "gradient_steps=1", "target_every=1", "target_rate=0.005", "learning_rate=5e-4")
SHORT = ("learning_starts=500", "buffer=10_000", "keep_best=0", "n_step=1")
SPEED = {
    "PPO": Speed("ppo", CARTPOLE, 100_000),
    "A2C": Speed("a2c", CARTPOLE, 200_000),
    "DQN": Speed("dqn", CARTPOLE, 50_000, (*STEP_BY_STEP, "keep_best=0")),
    "DQN in bouts": Speed("dqn", CARTPOLE, 50_000, ("keep_best=0",)),
    # Too few steps to become better at it: what is timed is looking, remembering and four fifths of the learning.
    "DQN from pixels": Speed("dqn", PONG, 2_500, SHORT, 1),
    "DQN from pixels, all in float32": Speed("dqn", PONG, 2_500, (*SHORT, "precision=float32"), 1),
}
SIDES = ("ours", "sb3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="mean returns of every pair")
    table.add_argument("--seeds", type=int, default=5)
    table.add_argument("--out", type=Path, default=Path("runs/agents"))
    table.add_argument("--only", nargs="*", default=[], help="tasks or algorithms; default all")
    figures = commands.add_parser("figures", help="the pictures of docs/agents.md")
    figures.add_argument("--seeds", type=int, default=5)
    figures.add_argument("--out", type=Path, default=Path("runs/agents"))
    figures.add_argument("--into", type=Path, default=Path("docs/agents"))
    figures.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    speed = commands.add_parser("speed", help="steps a second beside Stable-Baselines3")
    speed.add_argument("--rounds", type=int, default=3)
    speed.add_argument("--only", nargs="+", choices=SPEED, default=list(SPEED))
    speed.add_argument("--json", type=Path, help="write every figure here")
    one = commands.add_parser("one")  # one side of one comparison, in a process of its own
    one.add_argument("side", choices=SIDES)
    one.add_argument("name", choices=SPEED)
    one.add_argument("seed", type=int)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print_table(arguments.seeds, arguments.out, arguments.only)
    elif arguments.command == "figures":
        draw_figures(arguments.seeds, arguments.out, arguments.into, arguments.only)
    elif arguments.command == "speed":
        compare_speed(arguments.rounds, arguments.only, arguments.json)
    else:
        print(json.dumps(one_side(arguments.side, SPEED[arguments.name], arguments.seed)))


def print_table(seeds: int, out: Path, only: list[str]) -> None:
    """Train what is missing; a Markdown table."""
    from pipeline.agents.runs import run
    from pipeline.config import load_agent

    print("| task | algorithm | steps | mean return | aim | worst seed | steps/s | minutes a seed |")
    print("|---|---|---|---|---|---|---|---|")
    for task, algorithm, aim in PAIRS:
        if only and not {task, algorithm, f"{algorithm}-{task}"} & set(only):
            continue
        config = load_agent(
            algorithm, task, [f"seeds={seeds}", f"run_dir={out / f'{algorithm}-{task}'.replace('/', '-')}"]
        )
        figures = run(config)
        returns = figures["returns"]
        print(
            f"| {task} | {algorithm} | {config.steps:,} | {statistics.fmean(returns):.4g} ± "
            f"{statistics.stdev(returns) if seeds > 1 else 0:.2g} | ≥ {aim:g} | {min(returns):.4g} "
            f"| {figures['steps_per_second']:,.0f} | {figures['seconds'] / seeds / 60:.1f} |",
            flush=True,
        )


def draw_figures(seeds: int, out: Path, into: Path, names: list[str]) -> None:
    """Some of FIGURES, and the maze."""
    from pipeline.agents.runs import compare, run
    from pipeline.config import load_agent

    for figure in names:
        task, variants = FIGURES[figure]
        configs = {}
        for label, (algorithm, *overrides) in variants.items():
            place = out / "-".join([algorithm, task, *overrides])  # a run of the table is taken from there
            configs[label] = load_agent(algorithm, task, [f"seeds={seeds}", f"run_dir={place}", *overrides])
        compare(configs, into / f"{figure}.png")
    run(load_agent("q_learning", "Maze-v0", [f"run_dir={out / 'maze'}"]))
    shutil.copy(out / "maze" / "maze.png", into / "maze.png")


def compare_speed(rounds: int, names: list[str], file: Path | None) -> None:
    """Interleaved runs; medians, their ratio, and the smallest and largest ratio of a round."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    table = Table("", "ours, steps/s", "SB3, steps/s", "ratio", "of each round", "return, ours", "return, SB3")
    for name in names:
        sides: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(rounds):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                command = [sys.executable, __file__, "one", side, name, str(number)]
                done = subprocess.run(
                    command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                sides[side].append(json.loads(done.stdout.splitlines()[-1]))
        results[name] = sides
        speeds = {side: [one["steps_per_second"] for one in runs] for side, runs in sides.items()}
        medians = {side: statistics.median(values) for side, values in speeds.items()}
        ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
        returns = {side: statistics.fmean(one["mean_return"] for one in runs) for side, runs in sides.items()}
        table.add_row(
            name,
            *(f"{medians[side]:,.0f}" for side in SIDES),
            f"{medians['ours'] / medians['sb3']:.2f}",
            f"{min(ratios):.2f}–{max(ratios):.2f}",
            *(f"{returns[side]:.0f}" for side in SIDES),
        )
    Console().print(table)
    if file is not None:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def one_side(side: str, speed: Speed, seed: int) -> dict[str, float]:
    """Train by our config for the task, here or there; steps a second, and what the result plays."""
    from pipeline.agents.training import train
    from pipeline.config import load_agent
    from pipeline.rundir import StageDir

    own = [f"steps={speed.steps}", f"seed={seed}", f"evaluation_episodes={speed.episodes}"]
    config = load_agent(speed.algorithm, speed.task, [*speed.overrides, *own])
    if side == "sb3":
        from beside import sb3_side

        return sb3_side.train(config)
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, StageDir(Path(folder) / "run", "agent", ""), lambda steps, figures: None)
    return {name: result.metrics[name] for name in ("steps_per_second", "mean_return")}


if __name__ == "__main__":
    main()
