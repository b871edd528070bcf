"""A whole run: training, evaluation, Elo; what is repeated and what isn't."""

from pathlib import Path

import pytest

from pipeline.rundir import RunError
from pipeline.selfplay.runs import run
from pipeline.selfplay.training import STAGE, STATE
from tests.selfplay.builders import tiny


def test_a_whole_run(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run")
    figures = run(config)
    assert {"random.score", "mcts10.win_rate", "perfect.losses", "perfect.score_low", "first_move"} <= set(figures)
    assert figures["elo"]["generation 0"]["rating"] == 1000
    assert set(figures["elo"]) == {"generation 0", "generation 1", "generation 2", "mcts10"}
    assert (tmp_path / "run" / "elo.png").is_file()
    state = tmp_path / "run" / STAGE / STATE
    before = state.stat().st_mtime_ns
    assert run(config) == figures
    again = run(config.model_copy(update={"elo_games": 6}))  # only the evaluation is repeated
    assert again["perfect.games"] == 4
    assert state.stat().st_mtime_ns == before
    with pytest.raises(RunError, match="other settings"):
        run(config.model_copy(update={"seed": 1}))
    assert run(config.model_copy(update={"seed": 1}), force=True)["first_move"]
