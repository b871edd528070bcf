"""Monte-Carlo tree search in many games at once: each simulation adds one leaf to every game's tree, and all leaves
are judged together. The trees are arrays; a step down, or back up, is one operation for all games.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.games import Floats, Game, Ints
from pipeline.rl.search import noisy_priors

Array = NDArray[np.int64]


class Judge(Protocol):
    """What a search asks about positions that aren't over: a network, or games played out at random."""

    def __call__(self, states: Ints) -> tuple[Floats, Floats]:
        """Of [N,W]: priors [N,A] above 0 for legal moves and 0 for others, values [N] for the player to move."""
        ...


class Rule(Protocol):
    """Scores [B,A] of moves, the highest is looked at next: `rl.search.Puct`, `rl.search.Ucb`."""

    def __call__(self, priors: Tensor, visits: Tensor, totals: Tensor, values: Tensor) -> Tensor: ...


class Trees:
    """G trees of at most `size` nodes each. Node i of game g has number g · size + i, its edges node · A + action.

    Args:
        game: the rules.
        roots: [G,W], positions that aren't over.
        judge: of new positions.
        rule: which way to go down.
        size: nodes of a tree: 1 + the most simulations that `run` will do.

    Raises:
        ValueError: if the game is over in one of the roots.
    """

    def __init__(self, game: Game, roots: Ints, judge: Judge, rule: Rule, size: int) -> None:
        self._game, self._judge, self._rule, self._size = game, judge, rule, size
        self._count = len(roots)
        nodes, actions = len(roots) * size, game.actions
        self._states = np.zeros((nodes, roots.shape[1]), roots.dtype)
        self._over = np.zeros(nodes, np.bool_)
        self._values = np.zeros(nodes, np.float32)  # first value of each node, for the player to move there
        self._priors, self._visits, self._totals = (np.zeros((nodes, actions), np.float32) for _ in range(3))
        self._children = np.zeros((nodes, actions), np.int64)  # 0 = none: no node has the first root as a child
        self._used = np.ones(len(roots), np.int64)
        self._roots = np.arange(len(roots)) * size
        self._add(self._roots, roots)
        if self._over[self._roots].any():
            raise ValueError("roots: got a position in which the game is over; there is nothing to search")

    def add_noise(self, games: Array, *, share: float, alpha: float, rng: np.random.Generator) -> None:
        """Mix Dirichlet noise into the priors of some roots."""
        roots = self._roots[games]
        gammas = rng.standard_gamma(alpha, (len(games), self._game.actions)).astype(np.float32)
        mixed = noisy_priors(torch.from_numpy(self._priors[roots]), torch.from_numpy(gammas), share)
        self._priors[roots] = mixed.numpy()

    def run(self, simulations: Array) -> None:
        """So many simulations in each game, [G]."""
        for done in range(int(simulations.max(initial=0))):
            self._simulate(np.flatnonzero(simulations > done))

    @property
    def visits(self) -> Floats:
        """N of the roots' moves, [G,A]."""
        return self._visits[self._roots]

    @property
    def priors(self) -> Floats:
        """P of the roots' moves, [G,A]."""
        return self._priors[self._roots]

    @property
    def action_values(self) -> Floats:
        """Q of the roots' moves for the player to move, [G,A]; 0 where nobody looked."""
        found: Floats = self._totals[self._roots] / self._visits[self._roots].clip(np.float32(1))
        return found

    @property
    def values(self) -> Floats:
        """Mean of what was found from each root, [G], for the player to move."""
        visits, totals = self._visits[self._roots].sum(axis=1), self._totals[self._roots].sum(axis=1)
        found: Floats = (totals + self._values[self._roots]) / (visits + 1)
        return found

    def line(self, game: int, action: int) -> Sequence[int]:
        """The moves that a game's search thinks will follow `action`, with it."""
        moves, node = [action], int(self._children[self._roots[game], action])
        while node and self._visits[node].any():
            moves.append(int(self._visits[node].argmax()))
            node = int(self._children[node, moves[-1]])
        return moves

    def _simulate(self, games: Array) -> None:
        """One way down in each of `games`, a new leaf at its end, and its value on all moves of the way."""
        nodes, last = self._roots[games], np.zeros(len(games), np.int64)
        depths = np.zeros(len(games), np.int64)
        edges, whose = [], []
        going = np.arange(len(games))
        while len(going):
            at = nodes[going]
            edge = at * self._game.actions + self._choose(at)
            edges.append(edge)
            whose.append(going)
            last[going] = edge
            depths[going] += 1
            below = self._children.ravel()[edge]
            nodes[going] = below
            going = going[(below > 0) & ~self._over[below]]
        fresh = np.flatnonzero(nodes == 0)
        if len(fresh):
            nodes[fresh] = self._expand(games[fresh], last[fresh])
        self._back_up(edges, whose, depths, self._values[nodes])

    def _choose(self, nodes: Array) -> Array:
        arrays = (self._priors, self._visits, self._totals, self._values)
        scores = self._rule(*(torch.from_numpy(array.take(nodes, axis=0)) for array in arrays))
        best: Array = scores.argmax(dim=1).numpy()
        return best

    def _expand(self, games: Array, edges: Array) -> Array:
        nodes = self._roots[games] + self._used[games]
        self._used[games] += 1
        parents, actions = np.divmod(edges, self._game.actions)
        self._children.ravel()[edges] = nodes
        self._add(nodes, self._game.play(self._states[parents], actions))
        return nodes

    def _add(self, nodes: Array, states: Ints) -> None:
        self._states[nodes] = states
        over, values = self._game.outcome(states)
        self._over[nodes] = over
        self._values[nodes] = values
        open_ = np.flatnonzero(~over)
        if len(open_):
            self._priors[nodes[open_]], self._values[nodes[open_]] = self._judge(states[open_])

    def _back_up(self, edges: list[Array], whose: list[Array], depths: Array, values: Floats) -> None:
        """The mover at depth d sees a value found at depth D as its own if D − d is even, else negated."""
        levels = np.repeat(np.arange(len(edges)), [len(edge) for edge in edges])
        edge, owner = np.concatenate(edges), np.concatenate(whose)
        signs = 1 - 2 * ((depths[owner] - levels) % 2)
        # No two of the edges are the same: ways are of different games, and go down.
        self._visits.ravel()[edge] += 1
        self._totals.ravel()[edge] += signs * values[owner]
