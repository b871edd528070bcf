"""Positions from moves."""

import numpy as np

from pipeline.games import Game, Ints, find_action


def after(game: Game, moves: str) -> Ints:
    """The one position [1,W] after moves by their labels."""
    state = game.start(1)
    for label in moves.split():
        state = game.play(state, np.array([find_action(game, state[0], label)]))
    return state
