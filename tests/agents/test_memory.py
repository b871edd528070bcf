"""What on-policy agents gather: rows by copy or by episode, with true successors and endings."""

import numpy as np
import torch

from pipeline.agents.environments import Environments
from pipeline.agents.memory import EpisodeMemory, HorizonMemory, Trajectories

MAZE = {"text": "S.G"}


def gather(memory: HorizonMemory | EpisodeMemory, moves: list[list[int]]) -> Trajectories:
    envs = Environments("Maze-v0", 2, seed=0, options={**MAZE, "max_episode_steps": 3})
    for actions in moves:
        due = memory.add(envs.step(np.array(actions)), torch.tensor(actions))
    assert due is not None
    return due


def test_a_horizon_runs_over_the_ends_of_episodes() -> None:
    rows = gather(HorizonMemory(4), [[1, 0], [1, 0], [1, 0], [0, 1]])
    assert rows.states.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0]]
    assert rows.successors.tolist() == [[1, 2, 1, 1], [0, 0, 0, 1]]
    assert rows.terminated.tolist() == [[False, True, False, False], [False] * 4]
    assert rows.truncated.tolist() == [[False] * 4, [False, False, True, False]]
    assert rows.mask.all()


def test_episodes_are_whole_and_used_once() -> None:
    memory = EpisodeMemory(2, copies=2)
    rows = gather(memory, [[1, 0], [1, 0], [1, 0]])
    assert rows.mask.sum(1).tolist() == [2, 3]
    assert rows.states[0, :2].tolist() == [0, 1]
    assert rows.terminated[0, :2].tolist() == [False, True]
    assert rows.truncated[1].tolist() == [False, False, True]
    assert len(memory._running[0]) == 1  # its next episode has begun, and is kept
    assert not memory._running[1]
