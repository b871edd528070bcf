"""Frames kept once: the same steps as whole stacks, in an eighth of the memory."""

from collections import deque

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TimeLimit

from pipeline.agents import frames as frames_module
from pipeline.agents.environments import Environments, Experience, Step
from pipeline.agents.frames import FrameReplay
from pipeline.agents.replay import ReplayBuffer

STACK = 4


class Counter(gymnasium.Env[np.ndarray, int]):
    """Every frame is a number that comes once only, of [2, 1] bytes; action 1 ends the episode."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (2, 1), np.uint8)
        self.action_space = spaces.Discrete(2)
        self._count = 0

    def _frame(self) -> np.ndarray:
        self._count += 1
        return np.array([[self._count % 256], [self._count // 256]], np.uint8)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        return self._frame(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        return self._frame(), float(self._count), bool(action == 1), False, {}


def stacked() -> gymnasium.Env[np.ndarray, int]:
    return FrameStackObservation(TimeLimit(Counter(), 7), STACK)


@pytest.fixture
def name() -> str:
    if "StackedCounter-v0" not in gymnasium.registry:
        gymnasium.register("StackedCounter-v0", entry_point=stacked)
    return "StackedCounter-v0"


def rows(experience: Experience) -> list[tuple[object, ...]]:
    """Every step as something that can be sorted and compared."""
    parts = [part.numpy() for part in experience if part is not None]
    return sorted(tuple(part[i].tobytes() for part in parts) for i in range(len(parts[0])))


def whole(step: Step, copy: int) -> Experience:
    """One copy's step, as a buffer of whole stacks keeps it."""
    one = Experience.of(step)
    return Experience(
        *(part[copy : copy + 1] for part in one[:2]),
        one.rewards[copy : copy + 1].float(),
        *(part[copy : copy + 1] for part in one[3:5]),  # type: ignore[index]
    )


@pytest.mark.parametrize("capacity", [60, 3_000])
def test_it_gives_the_steps_that_whole_stacks_give(name: str, capacity: int) -> None:
    """Ends by the world and by the clock, three copies out of step, a ring that goes round many times, and once."""
    envs = Environments(name, 3, seed=0)
    assert envs.stack == STACK
    kept = FrameReplay(capacity, envs.observation_space, 3, torch.Generator().manual_seed(0))
    naive: list[deque[Experience]] = [deque(), deque(), deque()]
    rng = np.random.default_rng(0)
    ends = np.zeros(2, int)
    for number in range(300):
        step = envs.step((rng.random(3) < 0.15).astype(np.int64))
        ends += step.terminated.sum(), step.truncated.sum()
        kept.add(step)
        for copy in range(3):
            naive[copy].append(whole(step, copy))
        if number % 10 and capacity > 60:
            continue
        copies, slots = kept.drawable()
        for copy in range(3):
            mine = kept.steps(copies[copies == copy], slots[copies == copy])
            latest = list(naive[copy])[-len(mine.actions) :]
            assert rows(mine) == sorted(row for one in latest for row in rows(one))
    assert (ends > 20).all()
    if capacity == 60:  # 20 slots a copy, some of which hold last frames, and a few whose past is gone
        assert 3 * 10 <= len(kept) <= 60
    else:
        assert len(kept) == 900


@pytest.mark.parametrize("capacity", [60, 3_000])
def test_its_chains_are_those_of_whole_stacks(name: str, capacity: int) -> None:
    envs = Environments(name, 3, seed=0)
    kept = FrameReplay(capacity, envs.observation_space, 3, torch.Generator().manual_seed(0), n_step=3)
    plain = ReplayBuffer(10_000, envs.observation_space, torch.Generator().manual_seed(0), n_step=3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        step = envs.step((rng.random(3) < 0.15).astype(np.int64))
        kept.add(step)
        plain.add(step)
    # What counts is a copy's frame and the number of its steps: the plain memory holds older ones too.
    mine, all_of_them = rows(kept.sample(500)), set(rows(plain.sample(20_000)))
    assert set(mine) <= all_of_them
    lengths = np.array([np.frombuffer(row[5], np.int64)[0] for row in mine])  # type: ignore[call-overload]
    assert {1, 2, 3} == set(lengths.tolist())
    assert (lengths == 3).mean() > 0.4


def test_draws_are_even_over_what_is_kept(name: str) -> None:
    envs = Environments(name, 1, seed=0)
    kept = FrameReplay(40, envs.observation_space, 1, torch.Generator().manual_seed(0))
    for number in range(200):
        kept.add(envs.step(np.array([number % 11 == 10])))
    drawn = kept.sample(1_000 * len(kept))
    _, counts = np.unique(drawn.rewards.numpy(), return_counts=True)  # a reward tells a step
    assert len(counts) == len(kept) > 25
    assert counts.std() < 60  # 1000 each, ± 32 by chance


def test_memory_per_step_of_nature_frames() -> None:
    """A step costs one 84 × 84 frame and 15 bytes; whole stacks with successors cost eight frames."""
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    kept = FrameReplay(1_000, space, 8, torch.Generator())
    assert kept.nbytes == 1_000 * (84 * 84 + 8 + 4 + 1 + 1 + 1)
    assert kept.nbytes * 100 < 0.8e9  # a hundred thousand
    assert kept.nbytes * 1_000 < 7.5e9  # a million


def test_bad_use_is_named() -> None:
    space = spaces.Box(0, 255, (4, 2, 1), np.uint8)
    with pytest.raises(ValueError, match="at least 14"):
        FrameReplay(10, space, 2, torch.Generator())
    with pytest.raises(ValueError, match="empty"):
        FrameReplay(14, space, 2, torch.Generator()).sample(1)


def test_the_smallest_memory_works(name: str) -> None:
    envs = Environments(name, 2, seed=0)
    kept = frames_module.FrameReplay(2 * (STACK + 3), envs.observation_space, 2, torch.Generator().manual_seed(0))
    for number in range(100):
        kept.add(envs.step(np.array([number % 3 == 2, number % 5 == 4])))
        assert len(kept.sample(3).actions) == 3
