"""Who can play, and what matches come to."""

import numpy as np
import pytest

from pipeline.games import Game, Ints, find_action, make_game
from pipeline.rl.search import Puct
from pipeline.selfplay.arena import match, play_games
from pipeline.selfplay.players import PerfectPlayer, PlayoutJudge, RandomPlayer, SearchPlayer, play_out, playout_player
from tests.games.builders import after
from tests.selfplay.builders import EvenJudge


class Scripted:
    """Plays given labels, the same in every game."""

    def __init__(self, game: Game, *labels: str) -> None:
        self._game, self._labels = game, list(labels)

    def __call__(self, states: Ints, ply: int) -> Ints:
        label = self._labels[ply // 2]
        return np.array([find_action(self._game, state, label) for state in states])


def test_tic_tac_toe_is_a_draw_for_who_plays_perfectly() -> None:
    game = make_game("tic_tac_toe")
    player = PerfectPlayer(game, np.random.default_rng(0))
    assert player.value(game.start(1)[0]) == 0
    assert len(player.best(game.start(1)[0])) == 9
    assert sorted(game.label(int(a)) for a in player.best(after(game, "a1")[0])) == ["b2"]  # all others lose
    assert player.value(after(game, "a1 b1")[0]) == 1
    assert (match(game, player, player, 10).results == 0).all()


def test_perfect_play_is_never_beaten_and_beats_chance() -> None:
    game, rng = make_game("tic_tac_toe"), np.random.default_rng(0)
    found = match(game, PerfectPlayer(game, rng), RandomPlayer(game, rng), 60)
    assert (found.results >= 0).all()
    assert found.figures()["score"] > 0.85


def test_random_games_end_as_often_as_they_should() -> None:
    """At tic-tac-toe chance wins 58.5 % as the first, 28.8 % as the second, and draws 12.7 %."""
    game = make_game("tic_tac_toe")
    results = play_out(game, game.start(20_000), np.random.default_rng(0))
    shares = [(results == result).mean() for result in (1, -1, 0)]
    assert shares == pytest.approx([0.585, 0.288, 0.127], abs=0.012)


def test_playouts_are_the_movers() -> None:
    """One move is left, and it wins; after it the other one has lost."""
    game, rng = make_game("tic_tac_toe"), np.random.default_rng(0)
    state = after(game, "a1 a2 b1 b2 a3 b3 c3 c2")
    assert play_out(game, state, rng).tolist() == [1]
    judge = PlayoutJudge(game, rng)
    assert judge(state)[1].tolist() == [1]
    assert judge(game.start(400))[1].mean() == pytest.approx(0.3, abs=0.12)


def test_results_are_the_first_players_and_then_the_ones() -> None:
    game = make_game("tic_tac_toe")
    winner, loser = Scripted(game, "a1", "a2", "a3"), Scripted(game, "b1", "b2", "c3")
    results, moves = play_games(game, winner, loser, 3)
    assert results.tolist() == [1, 1, 1]
    assert moves[0] == [0, 1, 3, 4, 6]
    second = Scripted(game, "c1", "c2", "c3")
    results, _ = play_games(game, Scripted(game, "a1", "b2", "b1"), second, 2)
    assert results.tolist() == [-1, -1]
    found = match(game, winner, loser, 5)
    assert found.as_first.tolist() == [1, 1, 1]
    assert found.as_second.tolist() == [1, 1]  # it needs three moves, whoever begins
    assert found.figures() == {
        "games": 5,
        "wins": 5,
        "draws": 0,
        "losses": 0,
        "score": 1.0,
        "losses_as_first": 0,
        "losses_as_second": 0,
        "different": 2,
    }


def test_more_simulations_play_better() -> None:
    game, rng = make_game("connect_four"), np.random.default_rng(0)
    found = match(game, playout_player(game, 30, rng), playout_player(game, 4, rng), 20)
    assert found.figures()["score"] > 0.7


def test_an_opening_is_drawn_and_the_rest_is_not() -> None:
    game = make_game("connect_four")
    player = SearchPlayer(game, EvenJudge(game), Puct(), 30, np.random.default_rng(0), opening=2)
    assert len(set(player(game.start(50), 0).tolist())) > 3
    win = np.repeat(after(game, "1 7 1 7 1 6"), 20, axis=0)
    assert set(player(win, 6).tolist()) == {0}
