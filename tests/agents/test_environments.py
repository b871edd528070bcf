"""Copies stepped together: successors, endings, returns and seeds."""

import numpy as np
import pytest

from pipeline.agents.environments import Environments

MAZE = {"text": "S.G"}
RIGHT = 1


def test_the_successor_of_the_last_step_is_the_goal_and_not_the_next_start() -> None:
    envs = Environments("Maze-v0", 2, seed=0, options=MAZE)
    envs.step(np.array([RIGHT, 0]))
    step = envs.step(np.array([RIGHT, RIGHT]))
    assert step.observations.tolist() == [1, 0]
    assert step.successors.tolist() == [2, 1]
    assert step.terminated.tolist() == [True, False]
    assert envs.observations.tolist() == [0, 1]
    assert [(e.total, e.length, e.steps) for e in envs.finished()] == [(-2.0, 2, 4)]
    assert envs.finished() == []


def test_a_clock_truncates_and_leaves_the_successor() -> None:
    envs = Environments("Maze-v0", 1, seed=0, options={**MAZE, "max_episode_steps": 1})
    step = envs.step(np.array([RIGHT]))
    assert step.truncated.tolist() == [True]
    assert not step.terminated.any()
    assert step.successors.tolist() == [1]
    assert envs.observations.tolist() == [0]


def test_an_end_at_the_limit_is_an_end() -> None:
    envs = Environments("Maze-v0", 1, seed=0, options={"text": "SG", "max_episode_steps": 1})
    step = envs.step(np.array([RIGHT]))
    assert step.terminated.tolist() == [True]
    assert not step.truncated.any()


def test_vectors_of_numbers_keep_their_true_successors() -> None:
    envs = Environments("CartPole-v1", 3, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        step = envs.step(rng.integers(2, size=3))
        # A pole that fell lies beyond the bounds; a fresh one stands within ±.05.
        assert (np.abs(step.successors[step.terminated, 2]) > 0.2).all() or (
            np.abs(step.successors[step.terminated, 0]) > 2.4
        ).all()
    episodes = envs.finished()
    assert episodes
    assert all(episode.total == episode.length for episode in episodes)


def test_a_seed_decides_everything() -> None:
    first, same, other = (Environments("CartPole-v1", 2, seed=seed).observations for seed in (5, 5, 6))
    assert (first == same).all()
    assert (first != other).any()
    assert (first[1] == other[0]).all()  # copy i has seed + i


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CartPol-v1", {}, "CartPole"),
        ("Maze-v0", {"text": "S#G"}, "no way leads"),
        ("CartPole-v1", {"gravity_of": 3}, "gravity_of"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Environments(name, 1, seed=0, options=options)
    assert len(str(caught.value).splitlines()) == 1


def test_at_least_one_copy() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Environments("CartPole-v1", 0, seed=0)
