"""The search finds what a player would, counts as a plain one does, and sees every value through the mover's eyes."""

import numpy as np
import pytest
import torch

from pipeline.games import Game, Ints, make_game
from pipeline.rl.search import Puct, Ucb
from pipeline.selfplay.players import PlayoutJudge
from pipeline.selfplay.tree import Judge, Trees
from tests.games.builders import after
from tests.selfplay.builders import EvenJudge, OddJudge

WIN_IN_ONE = ("1 7 1 7 1 6", "1")
MUST_BLOCK = ("1 7 1 7 1", "1")
WIN_IN_THREE = ("3 3 4 4", "5 2")  # three in a row with both ends free, whichever side it grows to
RULE = Puct(1.5, 0.2)


def searched(game: Game, states: Ints, judge: Judge, simulations: int, rule: Puct | Ucb = RULE) -> Trees:
    trees = Trees(game, states, judge, rule, simulations + 1)
    trees.run(np.full(len(states), simulations))
    return trees


@pytest.mark.parametrize("position", [WIN_IN_ONE, MUST_BLOCK, WIN_IN_THREE])
@pytest.mark.parametrize("plain", [False, True])
def test_known_best_moves_at_connect_four(position: tuple[str, str], plain: bool) -> None:
    game = make_game("connect_four")
    judge: Judge = PlayoutJudge(game, np.random.default_rng(0)) if plain else EvenJudge(game)
    trees = searched(game, after(game, position[0]), judge, 400, Ucb() if plain else RULE)
    assert game.label(int(trees.visits[0].argmax())) in position[1].split()


@pytest.mark.parametrize(("moves", "best"), [("a1 c3 b1 c2", "c1"), ("b2 a1 c3 a3", "a2"), ("a1 b2 c3", "b1 b3 a2 c2")])
def test_known_best_moves_at_tic_tac_toe(moves: str, best: str) -> None:
    """Win; block; and against two corners a side, since a corner loses."""
    game = make_game("tic_tac_toe")
    trees = searched(game, after(game, moves), EvenJudge(game), 500)
    assert game.label(int(trees.visits[0].argmax())) in best.split()


def test_gomoku_wins_and_blocks() -> None:
    game = make_game("gomoku")
    for moves, best in (("b1 b7 c1 c7 d1 d7 e1 e7", {"a1", "f1"}), ("b1 b7 c1 d7 d1 a1 e1", {"f1"})):
        trees = searched(game, after(game, moves), EvenJudge(game), 600)
        assert game.label(int(trees.visits[0].argmax())) in best


def test_values_are_the_movers() -> None:
    """Who can win at once sees 1; who faces two threats sees −1; the move that wins has Q = 1 exactly."""
    game = make_game("connect_four")
    states = np.concatenate([after(game, "1 7 1 7 1 6"), after(game, "3 3 4 4 5")])
    trees = searched(game, states, EvenJudge(game), 800)
    assert trees.action_values[0, 0] == 1
    assert trees.values[0] > 0.9
    assert trees.values[1] < -0.8


def test_every_simulation_is_one_visit_of_the_root() -> None:
    game = make_game("connect_four")
    states = np.concatenate([game.start(1), after(game, "4"), after(game, "1 1 1 1 1 1")])
    trees = Trees(game, states, OddJudge(game), RULE, 41)
    trees.run(np.array([40, 0, 25]))
    assert trees.visits.sum(axis=1).tolist() == [40, 0, 25]
    assert trees.visits[2, 0] == 0  # a full column
    trees.run(np.array([0, 40, 0]))
    assert trees.visits.sum(axis=1).tolist() == [40, 40, 25]


def test_games_beside_each_other_don_t_matter() -> None:
    game = make_game("connect_four")
    states = np.concatenate([after(game, moves) for moves in ("4", "4 4", "1 7 1 7 1 6", "2 3 4 5 6")])
    together = searched(game, states, OddJudge(game), 80)
    for index in range(len(states)):
        alone = searched(game, states[[index]], OddJudge(game), 80)
        assert (alone.visits[0] == together.visits[index]).all()
        assert alone.values[0] == together.values[index]


class Node:
    """A plain search, one node an object, to compare with."""

    def __init__(self, game: Game, state: Ints, judge: Judge) -> None:
        self.state, self.children = state, {}
        self.over, self.value = (part[0] for part in game.outcome(state))
        self.visits, self.totals = np.zeros((2, 1, game.actions), np.float32)
        if not self.over:
            self.priors, (self.value,) = judge(state)

    def simulate(self, game: Game, judge: Judge) -> np.float32:
        """Returns the value found, for the player to move here."""
        if self.over:
            return self.value
        values = np.array([self.value], np.float32)
        arrays = (self.priors, self.visits, self.totals, values)
        action = int(RULE(*map(torch.from_numpy, arrays)).argmax())
        if action in self.children:
            value = -self.children[action].simulate(game, judge)
        else:
            self.children[action] = Node(game, game.play(self.state, np.array([action])), judge)
            value = -self.children[action].value
        self.visits[0, action] += 1
        self.totals[0, action] += value
        return value


@pytest.mark.parametrize("moves", ["", "a1", "b2 a1 c3"])
def test_it_visits_what_a_plain_search_visits(moves: str) -> None:
    game = make_game("tic_tac_toe")
    judge, state = OddJudge(game), after(game, moves)
    root = Node(game, state, judge)
    for _ in range(300):
        root.simulate(game, judge)
    trees = searched(game, state, judge, 300)
    assert trees.visits[0].tolist() == root.visits[0].tolist()
    assert trees.action_values[0].tolist() == pytest.approx((root.totals / root.visits.clip(1))[0].tolist(), abs=1e-6)


def test_a_game_that_is_over_has_nothing_to_search() -> None:
    game = make_game("connect_four")
    with pytest.raises(ValueError, match="over"):
        Trees(game, after(game, "1 2 1 2 1 2 1"), EvenJudge(game), RULE, 2)


def test_noise_moves_the_root_only_where_asked() -> None:
    game = make_game("connect_four")
    trees = Trees(game, game.start(2), EvenJudge(game), RULE, 2)
    trees.add_noise(np.array([1]), share=0.5, alpha=0.3, rng=np.random.default_rng(0))
    assert trees.priors[0].tolist() == pytest.approx([1 / 7] * 7)
    assert trees.priors[1].max() > 0.2
    assert trees.priors.sum(axis=1).tolist() == pytest.approx([1, 1])


def test_the_line_that_it_expects() -> None:
    """Two threats, one is blocked, the other wins."""
    game = make_game("connect_four")
    trees = searched(game, after(game, "3 3 4 4"), EvenJudge(game), 1000)
    first = int(trees.visits[0].argmax())
    line = trees.line(0, first)
    state = after(game, "3 3 4 4")
    for action in line:
        assert not game.outcome(state)[0][0]
        state = game.play(state, np.array([action]))
    assert len(line) == 3
    assert game.outcome(state)[1][0] == -1
