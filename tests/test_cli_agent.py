"""`align agent`: help that lists settings, JSON on the last line, errors in one sentence."""

import io
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


SELF_PLAY = [
    "generations=1",
    "games=8",
    "simulations=8",
    "channels=8",
    "blocks=1",
    "batch_size=8",
    "evaluation_games=2",
    "evaluation_simulations=8",
    "opponent_simulations=5",
    "elo_games=2",
    "progress=false",
    "run_dir=board",
]


def test_self_play_and_a_game_against_it(align: Align, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = align("alphazero", "tic_tac_toe", *SELF_PLAY, "--json")
    assert code == 0
    assert {"perfect.losses", "mcts5.score", "first_move", "elo"} <= set(json.loads(out.splitlines()[-1]))
    assert "board/elo.png" in err.replace("\n", "")
    monkeypatch.setattr("sys.stdin", io.StringIO("b2\nb2\n"))
    code, out, err = align("play", "board", "--json", "--simulations", "5")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert events[1]["move"] == "b2"
    assert any("refused" in event for event in events)
    assert "left as it is" in err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, _ = align("play", "board", "--second", "--generation", "0")
    assert code == 0
    assert "it plays" in out
    code, _, err = align("play", "board", "--generation", "7")
    assert code == 2
    assert "there are 0 to 1" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["alphazero", "tic_tac_to"], "did you mean tic_tac_toe"),
        (["alphazero", "gomoku", "options.length=9"], "no line of 9"),
        (["alphazero", "pettingzoo:rps_v2"], "don't see everything"),
        (["alphazero", "gomoku", "full_share=0"], "greater than 0"),
        (["compare", "gomoku", "alphazero"], "plays board games"),
    ],
)
def test_bad_input_of_self_play_is_one_clear_sentence(align: Align, arguments: list[str], words: str) -> None:
    code, _, err = align(*arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err
