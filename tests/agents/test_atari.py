"""Atari's preprocessing, in its order, and what training does that an evaluation doesn't."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from pipeline.agents import film
from pipeline.agents.atari import LIFE_LOST, Lives
from pipeline.agents.environments import LONGEST, Environments, make, with_limit
from pipeline.agents.rewards import clipped
from pipeline.agents.training import build, evaluate, load, train
from pipeline.config import load_agent
from pipeline.rundir import StageDir

pytest.importorskip("ale_py")
PONG = "ALE/Pong-v5"


def chain(env: gymnasium.Env[object, object]) -> list[str]:
    """Names of the wrappers, from the game outwards."""
    names = []
    while isinstance(env, gymnasium.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return names[::-1]


def test_the_order_of_the_preprocessing() -> None:
    inner = ["OrderEnforcing", "AtariPreprocessing"]
    options = {"repeat_action_probability": 0.0, "max_episode_steps": 50}
    assert chain(make(PONG, {}, training=True)) == [*inner, "Lives", "FrameStackObservation"]
    assert chain(make(PONG, options, training=False)) == [*inner, "TimeLimit", "FrameStackObservation"]
    env = make(PONG, {"stack": 3, "episodic_life": False}, training=True)
    assert "Lives" not in chain(env)
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (3, 84, 84), np.uint8)


def test_no_ops_at_the_start_and_four_frames_a_step() -> None:
    starts = set()
    for seed in range(6):
        env = make(PONG, {"repeat_action_probability": 0.0})
        env.reset(seed=seed)
        before = env.unwrapped.ale.getEpisodeFrameNumber()  # type: ignore[attr-defined]
        starts.add(before)
        env.step(0)
        assert env.unwrapped.ale.getEpisodeFrameNumber() == before + 4  # type: ignore[attr-defined]
    assert starts <= set(range(1, 31))
    assert len(starts) > 2
    env = make(PONG, {"noop_max": 0})
    env.reset(seed=0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() == 0  # type: ignore[attr-defined]


def test_two_frames_are_pooled_by_their_brighter_pixels() -> None:
    env = make(PONG, {"stack": 1, "screen_size": 84, "repeat_action_probability": 0.0, "noop_max": 0})
    env.reset(seed=0)
    raw = gymnasium.make(PONG, frameskip=1, repeat_action_probability=0.0, obs_type="grayscale")
    raw.reset(seed=0)
    import cv2

    for _ in range(30):
        seen = env.step(2)[0][0]
        shots = [raw.step(2)[0] for _ in range(4)]
    pooled = np.maximum(shots[2], shots[3])
    assert (seen == cv2.resize(pooled, (84, 84), interpolation=cv2.INTER_AREA)).all()
    assert (pooled != shots[3]).any()


def test_lost_lives_end_episodes_of_the_learner_but_not_the_game() -> None:
    """Five lives of Breakout: five endings for the learner, one game; the curve counts games."""
    pytest.importorskip("ale_py")
    options = {"repeat_action_probability": 0.0, "noop_max": 1}
    envs = Environments("ALE/Breakout-v5", 1, seed=0, options=options, training=True)
    rng, endings, games = np.random.default_rng(0), 0, []
    rewards = 0.0
    while not games:
        step = envs.step(rng.integers(0, 4, size=1))
        rewards += float(step.rewards[0])
        endings += int(step.terminated[0])
        games = envs.finished()
    assert endings == 5
    assert [(game.total, game.terminated) for game in games] == [(rewards, True)]
    evaluated = Environments("ALE/Breakout-v5", 1, seed=0, options=options)
    while not evaluated.step(rng.integers(0, 4, size=1)).terminated[0]:
        pass
    assert len(evaluated.finished()) == 1


def test_a_life_lost_goes_on_where_it_was() -> None:
    env = make("ALE/Breakout-v5", {"stack": 1, "repeat_action_probability": 0.0}, training=True)
    lives = env
    while not isinstance(lives, Lives):
        lives = lives.env  # type: ignore[attr-defined]
    env.reset(seed=0)
    last, info = np.empty(0), {LIFE_LOST: False}
    while not info[LIFE_LOST]:
        last, _, _, _, info = env.step(1)
    frame = env.unwrapped.ale.getEpisodeFrameNumber()  # type: ignore[attr-defined]
    assert (env.reset()[0] == last).all()
    assert env.unwrapped.ale.getEpisodeFrameNumber() == frame > 0  # type: ignore[attr-defined]
    env.reset(seed=1)  # a seed asks for a new game
    assert env.unwrapped.ale.lives() == 5  # type: ignore[attr-defined]


def test_games_have_their_own_limit() -> None:
    assert with_limit(PONG, {}) == {}  # 108,000 frames
    assert with_limit("MinAtar/Breakout-v1", {})["max_episode_steps"] == LONGEST


def test_rewards_are_clipped_for_the_learner_only() -> None:
    """Nine points a step: learned from as one, counted as nine."""
    if "Nine-v0" not in gymnasium.registry:
        gymnasium.register("Nine-v0", entry_point=Nine, max_episode_steps=5)
    config = load_agent("dqn", "Nine-v0", ["clip_rewards=true", "evaluation_episodes=2", "learning_starts=1000"])
    envs = Environments("Nine-v0", 1, seed=0)
    agent = build(config, envs.observation_space, envs.action_space)
    for _ in range(5):
        step = envs.step(agent.act(envs.observations))
        agent.learn(step, envs.observations)
    assert agent.memory.sample(20).rewards.unique().tolist() == [1.0]  # type: ignore[attr-defined]
    assert [episode.total for episode in envs.finished()] == [45.0]
    assert evaluate(agent, config) == [45.0, 45.0]
    assert clipped(step).rewards.tolist() == [1.0]


class Nine(gymnasium.Env[np.ndarray, int]):
    """Nine points, whatever is done."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        return np.zeros(1, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        return np.zeros(1, np.float32), 9.0, False, False, {}


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_pong_is_trained_saved_and_filmed(tmp_path: Path, algorithm: str) -> None:
    """A smoke of some steps with the real configuration's preprocessing."""
    options = "options={repeat_action_probability: 0.0, max_episode_steps: 12}"
    small = {
        "dqn": ["learning_starts=16", "buffer=200", "batch_size=4", "train_every=8", "gradient_steps=1"],
        "ppo": ["horizon=8", "epochs=1", "minibatch_size=8"],
    }
    shared = ["steps=40", "copies=2", "evaluation_episodes=1", "keep_best=0", options]
    config = load_agent(algorithm, PONG, [*shared, *small[algorithm]])
    result = train(config, StageDir(tmp_path / "seed-0", "agent", ""), lambda steps, figures: None)
    assert result.metrics["steps"] == 40
    assert result.metrics["terminated"] == 0.0
    agent, env = load(config, tmp_path / "seed-0")
    frames: list[film.Frame] = []
    film.play(agent, env, seed=0, frames=frames)
    assert len(frames) == 13
    assert frames[0].shape == (210, 160, 3)


def test_an_unknown_game_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="Pong") as caught:
        make("ALE/Pnog-v5", {})
    assert len(str(caught.value).splitlines()) == 1
