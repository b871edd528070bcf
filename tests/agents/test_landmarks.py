"""Environments of other packages: MinAtar's adapter, driving, and what is said where a package is missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipeline.agents.environments import make
from pipeline.agents.training import EVALUATION_SEED, play_episodes, train
from pipeline.config import load_agent
from pipeline.rundir import StageDir

pytest.importorskip("minatar")
BREAKOUT = "MinAtar/Breakout-v1"


@pytest.mark.parametrize(
    ("name", "package"), [(BREAKOUT, "minatar"), ("ALE/Nothing-v5", "ale-py"), ("highway-nothing-v0", "highway-env")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    for module in ("ale_py", "highway_env", "pipeline.agents.minatar"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("gymnasium.registry", {})
    with pytest.raises(ValueError, match=package) as caught:
        make(name, {})
    assert "pip install 'align-pipeline[landmarks]'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_game_of_cells() -> None:
    """Four kinds of things in Breakout: paddle, ball, its trail, bricks; three actions do something."""
    env = make(BREAKOUT, {"render_mode": "rgb_array"})
    first, _ = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert first.sum(axis=(0, 1)).tolist() == [1, 1, 1, 30]
    assert env.action_space.n == 3  # type: ignore[attr-defined]
    assert env.render().shape == (240, 240, 3)  # type: ignore[union-attr]
    env.step(0)
    env.step(0)  # ball and trail part, and leave the bricks
    assert len({tuple(colour) for colour in env.render().reshape(-1, 3)}) == 5  # type: ignore[union-attr]


def test_a_seed_decides_a_game_and_the_next_differs() -> None:
    def game(env, seed):  # type: ignore[no-untyped-def]
        seen, over = [env.reset(seed=seed)[0]], False
        while not over:
            observation, _, over, _, _ = env.step(len(seen) % 3)
            seen.append(observation)
        return np.stack(seen).tobytes()

    env = make(BREAKOUT, {})
    first, then = game(env, 7), [game(env, None) for _ in range(6)]
    assert game(env, 7) == first
    assert len({first, *then}) > 1


@pytest.mark.parametrize(("sticky", "moves"), [(0.0, 100), (1.0, 0)])
def test_sticky_actions_repeat_the_last_one(sticky: float, moves: int) -> None:
    """With certainty the first action, doing nothing, is repeated for ever; without, the paddle goes left at once."""
    moved = 0
    for seed in range(100):
        env = make(BREAKOUT, {"sticky": sticky})
        before, _ = env.reset(seed=seed)
        after = env.step(1)[0]
        moved += bool((before[9, :, 0] != after[9, :, 0]).any())
    assert moved == moves


def test_every_game_can_be_made() -> None:
    for game in ("Asterix", "Freeway", "Seaquest", "SpaceInvaders"):
        env = make(f"MinAtar/{game}-v1", {"ramping": False})
        assert env.observation_space.contains(env.reset(seed=0)[0])


def test_driving_is_known_by_its_own_name() -> None:
    pytest.importorskip("highway_env")
    env = make("highway-fast-v0", {})
    assert env.reset(seed=0)[0].shape == (5, 5)


def test_a_drive_can_be_filmed_without_a_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as pygame looks for its driver once: no picture is black, and they move."""
    pytest.importorskip("highway_env")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    learn = ["dqn", "highway-fast-v0", "steps=20", "learning_starts=10", "evaluation_episodes=1", "keep_best=0"]
    film = ["play", str(run), "--episodes", "1", "--render", str(tmp_path / "road.gif")]
    for arguments in ([*learn, f"run_dir={run}"], film):
        subprocess.run([sys.executable, "-m", "pipeline.cli", "agent", *arguments], check=True, capture_output=True)
    with Image.open(tmp_path / "road.gif") as picture:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) > 2
    assert all(frame.std() > 5 for frame in frames)


class Anything:
    """A driver who does anything."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def act(self, observations: np.ndarray, *, greedy: bool = False) -> np.ndarray:
        return self._random.integers(5, size=len(observations))


@pytest.mark.slow
def test_a_driver_learns(tmp_path: Path) -> None:
    """1,500 seconds on the road, in light traffic: longer drives than those of a driver who does anything."""
    pytest.importorskip("highway_env")
    road = ["options={config: {vehicles_count: 12, duration: 15}}", "hidden=[64,64]", "learning_rate=1e-3"]
    short = ["steps=1500", "target_every=100", "epsilon_share=0.5", "keep_best=0", "evaluation_episodes=30"]
    config = load_agent("dqn", "highway-fast-v0", [*road, *short])
    learned = train(config, StageDir(tmp_path / "agent", "agent", ""), lambda steps, figures: None).metrics
    played = play_episodes(Anything(), config, config.evaluation_episodes, EVALUATION_SEED)
    assert learned["mean_return"] > np.mean([episode.total for episode in played]) + 2
