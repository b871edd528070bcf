"""It learns, its window moves on, and an interrupted training goes on to the same bits."""

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
from pipeline.selfplay.episodes import Examples
from pipeline.selfplay.learning import Learner
from pipeline.selfplay.network import NetworkJudge
from pipeline.selfplay.players import PerfectPlayer, RandomPlayer, SearchPlayer
from pipeline.selfplay.runs import run
from pipeline.selfplay.training import STAGE, STATE, load_network, rule, train, weights_path
from tests.games.builders import after
from tests.selfplay.builders import tiny

GAME = make_game("tic_tac_toe")


class Stopped(Exception):
    """As a signal would."""


def examples(count: int, offset: int = 0) -> Examples:
    """Position i + offset wants move i mod 9 and is worth 1."""
    states = np.zeros((count, 2), np.int64)
    policies = np.eye(9, dtype=np.float32)[np.arange(count) % 9]
    return Examples(states, policies, np.ones(count, np.float32), np.full(count, offset, np.float32))


def go(folder: Path, generations: int = 3, stop: int | None = None, **settings: Any) -> None:
    def report(done: int, _: dict[str, float]) -> None:
        if done == stop:
            raise Stopped

    config = tiny(folder, generations=generations, **settings)
    train(GAME, config, RunDir(folder).open_stage(STAGE, "", resume=True), "", report)


def test_the_window_grows_and_forgets_the_oldest() -> None:
    learner = Learner(GAME, tiny(window=10, window_share=0.5))
    sizes = []
    for number in range(6):
        learner.take_in(examples(8, number))
        assert learner.window is not None
        sizes.append(len(learner.window))
    assert sizes == [8, 10, 12, 16, 20, 24]
    assert set(learner.window.roots.tolist()) == {3, 4, 5}


def test_targets_mix_outcome_and_search_and_turn_with_the_board() -> None:
    learner = Learner(GAME, tiny(root_value_share=0.25, batch_size=200))
    state = after(GAME, "a1")
    policy = np.zeros((1, 9), np.float32)
    policy[0, 1] = 1  # b1, beside the stone: a symmetry keeps it beside the stone
    learner.take_in(Examples(state, policy, np.ones(1, np.float32), np.full(1, -1, np.float32)))
    planes, legal, policies, targets = learner._batch(np.random.default_rng(0))
    assert (targets == 0.75 - 0.25).all()
    stones = planes[:, 1].flatten(1)
    assert len(set(stones.argmax(dim=1).tolist())) == 4
    assert (legal == (stones == 0)).all()
    places = [(cell % 3, cell // 3) for cell in range(9)]
    for stone, move in zip(stones.argmax(dim=1).tolist(), policies.argmax(dim=1).tolist(), strict=True):
        assert abs(places[stone][0] - places[move][0]) + abs(places[stone][1] - places[move][1]) == 1


def test_a_network_fits_what_it_is_shown() -> None:
    learner = Learner(GAME, tiny(passes=60.0, averaging=0.5, schedule="constant", learning_rate=1e-2))
    states = np.concatenate([GAME.start(1), after(GAME, "b2")])
    policies = np.eye(9, dtype=np.float32)[[4, 0]]
    policies[1, [2, 6, 8]] = 1  # all corners
    policies /= policies.sum(axis=1, keepdims=True)
    learner.take_in(Examples(states, policies, np.array([0.5, -0.5], np.float32), np.zeros(2, np.float32)))
    figures = learner.learn(40, 0.0, np.random.default_rng(0))
    assert figures["rate"] == 1e-2
    priors, values = NetworkJudge(GAME, learner.average, precision="float32")(states)
    assert priors[0, 4] > 0.9
    assert priors[1, [0, 2, 6, 8]].min() > 0.15
    assert values.tolist() == pytest.approx([0.375, -0.375], abs=0.1)


def test_the_rate_falls_along_a_cosine() -> None:
    learner = Learner(GAME, tiny(passes=1.0))
    learner.take_in(examples(4))
    rates = [learner.learn(1, done, np.random.default_rng(0))["rate"] / 2e-3 for done in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, 0.525, 0.05])


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


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    go(tmp_path, generations=1)
    (tmp_path / STAGE / STATE).write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"can't be read.*--force"):
        go(tmp_path)
    (tmp_path / STAGE / "generation-0001.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match="can't be loaded"):
        load_network(GAME, tiny(), weights_path(tmp_path / STAGE, 1))
