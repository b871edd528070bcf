"""The memory: a ring whose draws never reach over the end of an episode."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.agents.environments import Environments, Step
from pipeline.agents.replay import ReplayBuffer

LINE = spaces.Discrete(100)


def memory(capacity: int, space: spaces.Space[object] = LINE) -> ReplayBuffer:  # type: ignore[assignment]
    return ReplayBuffer(capacity, space, torch.Generator().manual_seed(0))


def walk(first: int, count: int = 1) -> Step:
    states = np.arange(first, first + count)
    no = np.zeros(count, dtype=bool)
    return Step(states, np.zeros(count, dtype=np.int64), states.astype(float), states + 1, no, no)


def test_the_oldest_leave_first() -> None:
    kept = memory(4)
    for first in range(0, 9, 3):
        kept.add(walk(first, 3))
    assert len(kept) == 4
    assert set(kept.sample(200).states.tolist()) == {5, 6, 7, 8}


def test_a_draw_keeps_what_belongs_together() -> None:
    kept = memory(10)
    kept.add(walk(3, 5))
    drawn = kept.sample(50)
    assert (drawn.successors == drawn.states + 1).all()
    assert (drawn.rewards == drawn.states).all()


def test_no_draw_reaches_over_the_end_of_an_episode() -> None:
    """In a corridor every successor is a neighbour or the same cell; a reset would jump back to the start."""
    envs = Environments("Maze-v0", 3, seed=0, options={"text": "S....G", "max_episode_steps": 7})
    kept = memory(1000, envs.observation_space)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(300):
        kept.add(envs.step(rng.choice([1, 1, 3], size=3)))
        ended += len(envs.finished())
    drawn = kept.sample(1000)
    assert ended > 50
    assert ((drawn.successors - drawn.states).abs() <= 1).all()
    assert (drawn.successors[drawn.terminated] == 5).all()  # only the goal ends an episode; the clock doesn't


@pytest.mark.parametrize("capacity", [1000, 31])  # a ring that never goes round; one whose length three don't divide
def test_chains_are_the_steps_one_after_the_other(capacity: int) -> None:
    """Of three copies out of step, against every copy's own list; a reward tells a step."""
    envs = Environments("Maze-v0", 3, seed=0, options={"text": "S....G", "max_episode_steps": 7})
    kept = ReplayBuffer(capacity, envs.observation_space, torch.Generator().manual_seed(0), n_step=4)
    rng, lists, ended = np.random.default_rng(0), [[], [], []], []  # type: ignore[var-annotated]
    for number in range(100):
        step = envs.step(rng.choice([1, 1, 3], size=3))
        step = replace(step, rewards=3.0 * number + np.arange(3))
        kept.add(step)
        ended.append(step.terminated | step.truncated)
        for copy, steps in enumerate(lists):
            steps.append([int(part[copy]) for part in (step.observations, step.successors, step.terminated)])
    drawn = kept.sample(3000)
    assert drawn.rewards.shape == (3000, 4)
    assert drawn.lengths is not None
    seen = set()
    for row in range(3000):
        number, copy = divmod(int(drawn.rewards[row, 0]), 3)
        length = 1
        while length < 4 and number + length < 100 and not ended[number + length - 1][copy]:
            length += 1
        assert drawn.lengths[row] == length
        assert drawn.rewards[row].tolist() == [3 * (number + k) + copy if k < length else 0 for k in range(4)]
        assert drawn.states[row] == lists[copy][number][0]
        assert [drawn.successors[row], drawn.terminated[row]] == lists[copy][number + length - 1][1:]
        seen.add((length, bool(drawn.terminated[row]), number + length == 100))
    assert {(4, False, False), (4, True, False), (2, False, True), (2, True, False), (2, False, False)} <= seen


def test_draws_are_even_and_repeatable() -> None:
    first, second = memory(8), memory(8)
    for kept in (first, second):
        kept.add(walk(0, 8))
    states = first.sample(8000).states
    assert states.equal(second.sample(8000).states)
    assert torch.bincount(states).float().std() < 60  # 1000 each, ± 30 by chance


def test_numbers_keep_shape_and_type() -> None:
    box = spaces.Box(-1, 1, (2, 3))
    kept = memory(2, box)
    observations = np.ones((1, 2, 3), dtype=np.float32)
    no = np.zeros(1, dtype=bool)
    kept.add(Step(observations, np.array([1]), np.array([0.5]), observations, no, no))
    drawn = kept.sample(1)
    assert drawn.states.shape == (1, 2, 3)
    assert (drawn.states.dtype, drawn.rewards.dtype) == (torch.float32, torch.float32)


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="capacity"):
        memory(0)
    with pytest.raises(ValueError, match="empty"):
        memory(1).sample(1)
    with pytest.raises(ValueError, match="capacity"):
        memory(1).add(walk(0, 2))
