"""How a trained driver compares with one that does nothing and one that does anything: the table of docs/landmarks.md.

    align agent dqn highway-fast-v0
    python scripts/bench_driving.py --run runs/dqn-highway-fast-v0

All meet the same traffic: the episodes of the evaluation, of which the trained driver has seen none.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.agents.environments import Array
from pipeline.agents.training import EVALUATION_SEED, load, play_episodes
from pipeline.config import read_agent

IDLE = 1  # among highway-env's DiscreteMetaAction: change left, idle, change right, faster, slower


class Driver:
    """Acts without looking."""

    def __init__(self, actions: int, *, random: bool) -> None:
        self._actions, self._random = actions, np.random.default_rng(0) if random else None

    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        """The same action for ever, or any."""
        count = len(observations)
        return np.full(count, IDLE) if self._random is None else self._random.integers(self._actions, size=count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder of an agent on a highway")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    config = read_agent(arguments.run / "config.yaml")
    trained, env = load(config, arguments.run / f"seed-{config.seed}")
    actions = int(env.action_space.n)  # type: ignore[attr-defined]
    drivers: dict[str, Any] = {
        "random": Driver(actions, random=True),
        "idle": Driver(actions, random=False),
        f"{config.algorithm}, {config.steps:,} steps": trained,
    }
    table = Table("driver", "without a collision", "return", "seconds on the road", title=config.environment)
    for name, driver in drivers.items():
        played = play_episodes(driver, config, arguments.episodes, EVALUATION_SEED)
        safe = 1.0 - fmean(episode.terminated for episode in played)
        returns, lengths = fmean(one.total for one in played), fmean(one.length for one in played)
        table.add_row(name, f"{safe:.0%}", f"{returns:.1f}", f"{lengths:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
