"""`align agent`: help that lists settings, JSON on the last line, errors in one sentence."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.config import AGENTS

Align = Callable[..., tuple[int, str, str]]

MAZE = ["options={text: S...G}", "steps=300", "progress=false", "evaluation_episodes=4"]


@pytest.fixture
def align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_align: Align) -> Align:
    """`align agent …` in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    return partial(run_align, "agent")


@pytest.mark.parametrize("algorithm", AGENTS)
def test_help_lists_every_setting(align: Align, algorithm: str) -> None:
    code, out, _ = align(algorithm, "--help")
    assert code == 0
    for name in AGENTS[algorithm].model_fields:
        assert name in out or name in ("algorithm", "environment")


def test_train_play_and_json(align: Align) -> None:
    code, out, err = align("q_learning", "Maze-v0", *MAZE, "run_dir=run", "--json", "--render", "run/play.gif")
    assert code == 0
    figures = json.loads(out.splitlines()[-1])
    assert figures["mean_return"] == -4.0
    assert {"episodes", "steps", "steps_per_second", "seconds"} <= set(figures)
    assert "run/play.gif" in err.replace("\n", "")
    assert Path("run/play.gif").is_file()
    code, out, _ = align("play", "run", "--episodes", "2")
    assert code == 0
    assert "mean of 2: -4" in out


def test_the_maze_has_its_own_command(align: Align) -> None:
    code, _, err = align("maze", "steps=300", "progress=false", "evaluation_episodes=2")
    assert code == 0
    assert Path("runs/q_learning-Maze-v0/maze.png").is_file()
    assert "maze.png" in err


def test_comparing_variants(align: Align) -> None:
    code, out, _ = align("compare", "Maze-v0", "q_learning", "q_learning:planning=0,rate=0.9", *MAZE, "run_dir=c")
    assert code == 0
    assert "q_learning:planning=0" in out
    assert Path("c/compare.png").is_file()
    assert Path("c/q_learning-planning=0-rate=0.9/seed-0/result.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ppo", "CartPol-v1"], "CartPole"),
        (["dqn", "Pendulum-v1"], "continuous"),
        (["maze", "options={text: S#G}"], "no way leads"),
        (["ppo", "CartPole-v1", "horizn=3"], "did you mean horizon"),
        (["play", "nowhere"], "no finished agent"),
        (["compare", "CartPole-v1", "pp"], "did you mean ppo"),
        (["compare", "CartPole-v1", "steps=3"], "at least one variant"),
    ],
)
def test_bad_input_is_one_clear_sentence(align: Align, arguments: list[str], words: str) -> None:
    code, _, err = align(*arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err
