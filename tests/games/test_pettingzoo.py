"""Foreign environments agree with our own rules; what isn't a game for two in turn is refused in one sentence."""

import sys

import numpy as np
import pytest

from pipeline.games import GameError, make_game

pytest.importorskip("pettingzoo")


@pytest.mark.parametrize(
    ("ours", "theirs"), [("tic_tac_toe", "pettingzoo:tictactoe_v3"), ("connect_four", "pettingzoo:connect_four_v3")]
)
def test_it_plays_as_our_own_game_does(ours: str, theirs: str) -> None:
    game, other, rng = make_game(ours), make_game(theirs), np.random.default_rng(0)
    turned = np.arange(9).reshape(3, 3).T.ravel() if ours == "tic_tac_toe" else np.arange(7)  # it counts by columns
    here, there = game.start(20), other.start(20)
    while len(here):
        legal = other.legal(there)
        assert (legal == game.legal(here)[:, turned]).all()
        actions = (legal * rng.random(legal.shape)).argmax(axis=1)
        here, there = game.play(here, turned[actions]), other.play(there, actions)
        over, values = game.outcome(here)
        assert (other.outcome(there)[0] == over).all()
        assert (other.outcome(there)[1] == values).all()
        assert (other.planes(there).sum(axis=(2, 3)) == game.planes(here)[:, :2].sum(axis=(2, 3))).all()
        here, there = here[~over], there[~over]


def test_a_game_that_goes_on_too_long_is_a_draw() -> None:
    game = make_game("pettingzoo:connect_four_v3", {"plies": 3})
    state = game.start(1)
    for action in (0, 1, 2):
        assert not game.outcome(state)[0][0]
        state = game.play(state, np.array([action]))
    assert game.outcome(state)[0][0]
    assert game.outcome(state)[1][0] == 0


def test_a_board_is_shown() -> None:
    game = make_game("pettingzoo:connect_four_v3")
    assert game.show(game.play(game.start(1), np.array([3]))[0]).splitlines()[-2:] == ["· · · O · · ·", "moves: 3"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pettingzoo:rps_v2", "don't see everything"),
        ("pettingzoo:nope_v1", "can't be made: No module named"),
        ("pettingzoo:tests.games.three", "3 players; self-play needs two"),
        ("pettingzoo:tests.games.blind", "no board game"),
    ],
)
def test_what_it_can_not_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "tests.games.three", Stub(3))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tests.games.blind", Stub(2))  # type: ignore[arg-type]
    with pytest.raises(GameError, match=words):
        make_game(name)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pettingzoo", None)  # type: ignore[arg-type]
    with pytest.raises(GameError, match="pip install"):
        make_game("pettingzoo:connect_four_v3")


class Stub:
    """A module whose environment has so many players, who see a number."""

    def __init__(self, players: int) -> None:
        self.possible_agents = [f"player_{index}" for index in range(players)]
        self.agent_selection = self.possible_agents[0]

    def raw_env(self) -> "Stub":
        return self

    def reset(self, seed: int) -> None: ...

    def observe(self, agent: str) -> int:
        return 3
