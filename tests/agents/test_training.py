"""The loop, the evaluation, whole runs in a folder, and what is said when things don't fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.agents import runs, training
from pipeline.agents.environments import Array, Environments
from pipeline.agents.errors import AgentError
from pipeline.agents.training import evaluate, load
from pipeline.config import AgentConfig, load_agent, read_agent
from pipeline.rundir import RunError, StageDir, read_jsonl

QUICK = ["options={text: S...G}", "steps=400", "progress=false", "evaluation_episodes=6"]


def config_of(folder: Path, algorithm: str = "q_learning", *options: str) -> AgentConfig:
    return load_agent(algorithm, "Maze-v0", [*QUICK, f"run_dir={folder}", *options])


class Right:
    """Pushes to the right, whatever it sees."""

    def act(self, observations: Array, *, greedy: bool = False) -> Array:
        assert greedy
        return np.ones(len(observations), dtype=np.int64)


def test_every_copy_plays_as_many_episodes() -> None:
    config = load_agent("q_learning", "CartPole-v1", ["evaluation_episodes=30"])
    assert len(evaluate(Right(), config)) == 30  # type: ignore[arg-type]


def test_a_walk_in_circles_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """CliffWalking sets no time limit, and an agent that knows nothing walks into the wall for ever."""
    monkeypatch.setattr("pipeline.agents.environments.LONGEST", 50)
    config = load_agent("q_learning", "CliffWalking-v1", ["evaluation_episodes=2"])

    class Left(Right):
        def act(self, observations: Array, *, greedy: bool = False) -> Array:
            return np.full(len(observations), 3)

    assert evaluate(Left(), config) == [-50.0, -50.0]  # type: ignore[arg-type]


def test_a_run_leaves_its_folder_and_is_not_repeated(tmp_path: Path) -> None:
    config = config_of(tmp_path, "q_learning", "seeds=1", "planning=5")
    figures = runs.run(config)
    assert figures["mean_return"] == -4.0
    assert figures["steps"] == 400
    assert {"mean_return", "terminated", "episodes", "steps", "steps_per_second", "seconds", "returns"} == set(figures)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "curve.png", "maze.png", "film.gif", "strip.png"),
        *(f"seed-0/{name}" for name in ("metrics.jsonl", "agent.safetensors", "result.json")),
    }
    rows = read_jsonl(tmp_path / "seed-0" / "metrics.jsonl")
    assert rows[-1]["step"] == 400
    assert {"episodes", "return", "length", "td_error"} <= set(rows[-1])
    written = (tmp_path / "seed-0" / "result.json").stat().st_mtime_ns
    assert runs.run(config)["mean_return"] == -4.0
    assert (tmp_path / "seed-0" / "result.json").stat().st_mtime_ns == written
    runs.run(config_of(tmp_path, "q_learning", "planning=4"))
    assert (tmp_path / "seed-0" / "result.json").stat().st_mtime_ns != written
    assert read_agent(tmp_path / "config.yaml").model_dump()["planning"] == 4


def test_seeds_are_trained_apart_and_agree_with_one_alone(tmp_path: Path) -> None:
    together = runs.run(config_of(tmp_path / "both", "q_learning", "seeds=2", "planning=0"))
    alone = runs.run(config_of(tmp_path / "one", "q_learning", "seed=1", "planning=0"))
    assert len(together["returns"]) == 2
    assert together["steps"] == 800
    first, second = (tmp_path / "both" / "seed-1", tmp_path / "one" / "seed-1")
    assert (first / "agent.safetensors").read_bytes() == (second / "agent.safetensors").read_bytes()
    assert alone["returns"][0] == together["returns"][1]


@pytest.mark.parametrize("algorithm", ["q_learning", "dqn", "ppo"])
def test_a_saved_agent_acts_the_same(algorithm: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, algorithm)
    runs.run(config)
    agent, env = load(config, tmp_path / "seed-0")
    again, _ = load(config, tmp_path / "seed-0")
    states = np.arange(4)
    assert agent.act(states, greedy=True).shape == (4,)
    if algorithm != "q_learning":  # a table draws its ties
        assert (agent.act(states, greedy=True) == again.act(states, greedy=True)).all()
    env.reset()
    assert env.render().ndim == 3


def test_playing_gives_returns_and_a_film(tmp_path: Path) -> None:
    runs.run(config_of(tmp_path / "run"))
    path = tmp_path / "films" / "play.gif"
    assert runs.play(tmp_path / "run", episodes=2, seed=0, film_path=path, window=False) == [-4.0, -4.0]
    assert path.is_file()
    with pytest.raises(RunError, match="no finished agent"):
        runs.play(tmp_path, episodes=1, seed=0, film_path=None, window=False)


def test_comparing_draws_one_figure(tmp_path: Path) -> None:
    configs = {name: config_of(tmp_path / name, name) for name in ("q_learning", "sarsa")}
    results = runs.compare(configs, tmp_path / "compare.png")
    assert set(results) == set(configs)
    assert (tmp_path / "compare.png").is_file()


@pytest.mark.parametrize(
    ("algorithm", "environment", "words"),
    [
        ("q_learning", "CartPole-v1", "has no table"),
        ("dqn", "Pendulum-v1", "continuous"),
        ("ppo", "CartPol-v1", "CartPole"),
    ],
)
def test_what_does_not_fit_is_one_sentence(algorithm: str, environment: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        runs.run(load_agent(algorithm, environment, [f"run_dir={tmp_path}", "progress=false", "seeds=1"]))
    assert len(str(caught.value).splitlines()) == 1


def test_another_agents_weights_are_refused(tmp_path: Path) -> None:
    runs.run(config_of(tmp_path, "dqn"))
    with pytest.raises(AgentError, match="can't be loaded"):
        load(config_of(tmp_path, "dqn", "hidden=[8]"), tmp_path / "seed-0")
    (tmp_path / "seed-0" / "agent.safetensors").write_bytes(b"junk")
    with pytest.raises(AgentError, match="can't be loaded"):
        load(config_of(tmp_path, "dqn"), tmp_path / "seed-0")


def test_a_dropped_version_becomes_the_newest(caplog: pytest.LogCaptureFixture) -> None:
    assert Environments("Taxi-v3", 1, seed=0).observation_space.n == 500  # type: ignore[attr-defined]
    assert "Taxi-v3 is gone" in caplog.text


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    """Training wants one thread and no denormal numbers; who calls it wants both back."""
    torch.set_num_threads(2)
    try:
        training.train(config_of(tmp_path, "dqn"), StageDir(tmp_path / "agent", "agent", ""), lambda *row: None)
        assert torch.get_num_threads() == 2
        assert torch.tensor(2.0**-149).mul(1.0).item() > 0
    finally:
        torch.set_num_threads(1)


# ---- keeping the best ---------------------------------------------------------------------------------------


def test_the_weights_that_played_best_are_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at 100, 200, 300 and 400 steps; the second and third are the best, and the later one counts."""
    means = iter([1.0, 5.0, 5.0, 2.0])
    kept: list[Any] = []

    def look(agent: Any, config: AgentConfig, episodes: int | None = None, seed: int = 0) -> list[float]:
        if episodes is None:
            return [0.0, 0.0]
        assert (episodes, seed) == (7, training.SELECTION_SEED)
        kept.append({name: value.clone() for name, value in agent.state_dict().items()})
        return [next(means)] * episodes

    monkeypatch.setattr(training, "evaluate", look)
    config = config_of(tmp_path, "q_learning", "keep_best=100", "selection_episodes=7")
    out = StageDir(tmp_path / "agent", "agent", "")
    result = training.train(config, out, lambda steps, figures: None)
    assert (result.metrics["best_step"], result.metrics["best_return"]) == (300, 5.0)
    saved = load_file(out.path / training.WEIGHTS)
    assert all(torch.equal(saved[name], kept[2][name]) for name in saved)
    assert not all(torch.equal(saved[name], kept[3][name]) for name in saved)


def test_looking_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    rows = {}
    for keep in (0, 100):
        config = config_of(
            tmp_path / str(keep), "dqn", "learning_starts=50", f"keep_best={keep}", "selection_episodes=2"
        )
        out = StageDir(tmp_path / f"agent-{keep}", "agent", "")
        training.train(config, out, lambda steps, figures: None)
        rows[keep] = read_jsonl(out.path / "metrics.jsonl")
    assert rows[0] == rows[100]
