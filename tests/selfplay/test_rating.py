"""Who is rated and who meets whom; with a gate, the network that passed it last is the one that plays."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from pipeline.games import make_game
from pipeline.rundir import RunError
from pipeline.selfplay.rating import matches, opponents, pairs, rated
from pipeline.selfplay.training import STATE, plays
from tests.selfplay.builders import tiny


def state(folder: Path, playing: int) -> Path:
    save_file({"seen": zeros(1)}, folder / STATE, {"done": "10", "playing": str(playing)})
    return folder


def test_generations_are_spread_evenly(tmp_path: Path) -> None:
    config = tiny(generations=10, elo_generations=4)
    assert rated(config, state(tmp_path, 10)) == [0, 2, 5, 8, 10]
    assert pairs(config, tmp_path) == [(0, 2), (2, 5), (5, 8), (8, 10), (0, 10), (2, 10), (5, 10)]


def test_who_passed_the_gate_is_rated_and_met_by_all(tmp_path: Path) -> None:
    config = tiny(generations=10, elo_generations=2)
    assert plays(state(tmp_path, 7)) == 7
    assert rated(config, tmp_path) == [0, 5, 7, 10]
    assert pairs(config, tmp_path) == [(0, 5), (5, 7), (7, 10), (0, 7)]


def test_perfect_play_is_an_opponent_where_it_can_be_found(tmp_path: Path) -> None:
    game, config = make_game("tic_tac_toe"), tiny(generations=10, elo_generations=2)
    assert list(opponents(game, config, None)) == ["random", "mcts10", "perfect"]  # type: ignore[arg-type]
    assert "perfect" not in opponents(make_game("gomoku"), config, None)  # type: ignore[arg-type]
    assert matches(game, config, state(tmp_path, 10)) == 3 + 3 + 1


def test_nothing_plays_before_the_first_generation(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no generation yet"):
        plays(tmp_path)
