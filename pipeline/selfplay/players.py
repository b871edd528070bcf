"""Who can play: at random, by tree search with a network or with random playouts, and without a fault."""

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from pipeline.games import Floats, Game, Ints
from pipeline.rl.search import Ucb, visit_policy
from pipeline.selfplay.episodes import draw
from pipeline.selfplay.tree import Judge, Rule, Trees


class Player(Protocol):
    """Chooses moves in many games at once."""

    def __call__(self, states: Ints, ply: int) -> Ints:
        """Legal actions [N] in [N,W]; `ply` moves were made in each of the games."""
        ...


class RandomPlayer:
    """Every legal move is as likely."""

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self._game, self._rng = game, rng

    def __call__(self, states: Ints, ply: int) -> Ints:
        return random_moves(self._game, states, self._rng)


class SearchPlayer:
    """The move that a search looked at most; among equals, any.

    Args:
        game: the rules.
        judge: of positions.
        rule: which way a search goes.
        simulations: of each move.
        rng: of ties and openings.
        opening: plies in which it draws by visit shares instead, so that games differ.
    """

    def __init__(
        self, game: Game, judge: Judge, rule: Rule, simulations: int, rng: np.random.Generator, *, opening: int = 0
    ) -> None:
        self._game, self._judge, self._rule = game, judge, rule
        self._simulations, self._rng, self._opening = simulations, rng, opening

    def search(self, states: Ints) -> Trees:
        """The trees behind its moves."""
        trees = Trees(self._game, states, self._judge, self._rule, self._simulations + 1)
        trees.run(np.full(len(states), self._simulations))
        return trees

    def __call__(self, states: Ints, ply: int) -> Ints:
        visits = torch.from_numpy(self.search(states).visits)
        return draw(visit_policy(visits, 1.0 if ply < self._opening else 0.0).numpy(), self._rng)


class PerfectPlayer:
    """Never gives away what it has: of the moves with the best result, any. Looks to the end of small games."""

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self._game, self._rng = game, rng
        self._value = lru_cache(maxsize=None)(self._find_value)

    def __call__(self, states: Ints, ply: int) -> Ints:
        return np.array([self._rng.choice(self.best(state)) for state in states])

    def best(self, state: Ints) -> Ints:
        """All moves that are as good as any, in one position [W]."""
        actions, values = self._moves(state)
        return actions[values == values.max()]

    def value(self, state: Ints) -> int:
        """What a position [W] is worth to the player to move: 1, 0 or −1."""
        return int(self._value(tuple(state.tolist())))

    def _find_value(self, key: tuple[int, ...]) -> int:
        state = np.array(key)
        over, value = self._game.outcome(state[None])
        return int(value[0]) if over[0] else int(self._moves(state)[1].max())

    def _moves(self, state: Ints) -> tuple[Ints, Ints]:
        actions = np.flatnonzero(self._game.legal(state[None])[0])
        after = self._game.play(np.repeat(state[None], len(actions), axis=0), actions)
        return actions, np.array([-self.value(one) for one in after])


class PlayoutJudge:
    """A position is worth what a game from it at random comes to; all moves are as promising."""

    def __init__(self, game: Game, rng: np.random.Generator) -> None:
        self._game, self._rng = game, rng

    def __call__(self, states: Ints) -> tuple[Floats, Floats]:
        order = random_order(self._game, states, self._rng)
        return order / order.sum(axis=1, keepdims=True), play_out(self._game, states, self._rng)


def playout_player(game: Game, simulations: int, rng: np.random.Generator) -> SearchPlayer:
    """Plain Monte-Carlo tree search: UCT, each leaf judged by one random game (Kocsis & Szepesvári 2006)."""
    return SearchPlayer(game, PlayoutJudge(game, rng), Ucb(), simulations, rng)


def random_moves(game: Game, states: Ints, rng: np.random.Generator) -> Ints:
    """A legal move [N] of each position [N,W], each as likely."""
    return random_order(game, states, rng).argmax(axis=1)


def random_order(game: Game, states: Ints, rng: np.random.Generator) -> Floats:
    """Numbers [N,A] in (0, 1] by which legal moves can be told apart; 0 for the others."""
    legal = game.legal(states)
    return legal * (1 - rng.random(legal.shape, np.float32))


def play_out(game: Game, states: Ints, rng: np.random.Generator) -> Floats:
    """Results [N], for the player to move in [N,W], of one game each at random from there."""
    results, who, sign = np.zeros(len(states), np.float32), np.arange(len(states)), 1.0
    while len(who):
        states, sign = game.play(states, random_moves(game, states, rng)), -sign
        over, values = game.outcome(states)
        results[who[over]] = sign * values[over]
        states, who = states[~over], who[~over]
    return results
