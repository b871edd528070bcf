"""It learns, and an interrupted training goes on to the same bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.games import make_game
from pipeline.rundir import RunDir, RunError
from pipeline.selfplay.arena import match
from pipeline.selfplay.network import NetworkJudge
from pipeline.selfplay.players import PerfectPlayer, RandomPlayer, SearchPlayer
from pipeline.selfplay.training import STAGE, STATE, load_network, rule, train, weights_path
from tests.selfplay.builders import tiny

GAME = make_game("tic_tac_toe")


class Stopped(Exception):
    """As a signal would."""


def go(folder: Path, generations: int = 3, stop: int | None = None, **settings: Any) -> None:
    def report(done: int, _: dict[str, float]) -> None:
        if done == stop:
            raise Stopped

    config = tiny(folder, generations=generations, **settings)
    train(GAME, config, RunDir(folder).open_stage(STAGE, "", resume=True), "", report)


@pytest.mark.parametrize("gate", [None, 0.55])
def test_going_on_leads_to_the_same_bits(tmp_path: Path, gate: float | None) -> None:
    go(tmp_path / "whole", gate=gate, gate_games=6)
    with pytest.raises(Stopped):
        go(tmp_path / "parts", stop=1, gate=gate, gate_games=6)
    with open(tmp_path / "parts" / STAGE / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2}\n')  # written when the process died; it doesn't count
    go(tmp_path / "parts", gate=gate, gate_games=6)
    one, other = (load_file(tmp_path / name / STAGE / STATE) for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [
        [json.loads(line) for line in (tmp_path / name / STAGE / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert [row["policy_loss"] for row in rows[0]] == [row["policy_loss"] for row in rows[1]]
    assert len(rows[1]) == 3
    assert len(list((tmp_path / "parts" / STAGE).glob("generation-*.safetensors"))) == 4


def test_a_gate_that_nobody_passes_keeps_the_first_network(tmp_path: Path) -> None:
    go(tmp_path, gate=1.0, gate_games=6)
    rows = [json.loads(line) for line in (tmp_path / STAGE / "metrics.jsonl").read_text().splitlines()]
    assert all(row["gate_score"] < 1 for row in rows)
    assert [row["playing"] for row in rows] == [0, 0, 0]


def test_without_a_gate_the_newest_plays(tmp_path: Path) -> None:
    go(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / STAGE / "metrics.jsonl").read_text().splitlines()]
    assert [row["playing"] for row in rows] == [1, 2, 3]
    assert all("gate_score" not in row for row in rows)


def test_it_learns_tic_tac_toe(tmp_path: Path) -> None:
    """After some seconds it gives perfect play half as many wins as before, and beats chance."""
    settings = {"games": 64, "simulations": 25, "full_share": 1.0, "channels": 16, "blocks": 1, "batch_size": 64}
    go(tmp_path, generations=5, learning_rate=5e-3, averaging=0.05, **settings)
    config = tiny(tmp_path, **settings)
    losses, wins = [], []
    for generation in (0, 5):
        judge = NetworkJudge(GAME, load_network(GAME, config, weights_path(tmp_path / STAGE, generation)))
        rng = np.random.default_rng(0)
        player = SearchPlayer(GAME, judge, rule(config), 10, rng)
        losses.append(match(GAME, player, PerfectPlayer(GAME, rng), 100).figures()["losses"])
        wins.append(match(GAME, player, RandomPlayer(GAME, rng), 100).figures()["wins"])
    assert losses[0] > 40
    assert losses[1] < losses[0] / 2
    assert wins[1] > 85


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    go(tmp_path, generations=1)
    (tmp_path / STAGE / STATE).write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"can't be read.*--force"):
        go(tmp_path)
    (tmp_path / STAGE / "generation-0001.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match="can't be loaded"):
        load_network(GAME, tiny(), weights_path(tmp_path / STAGE, 1))
