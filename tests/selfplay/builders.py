"""Judges without a network, and settings of trainings that take a second."""

from typing import Any

import numpy as np

from pipeline.config import AlphaZeroConfig
from pipeline.games import Floats, Game, Ints
from pipeline.selfplay.network import position_keys


class EvenJudge:
    """Every move is as promising, every position as good: a search sees only how games end."""

    def __init__(self, game: Game) -> None:
        self._game = game

    def __call__(self, states: Ints) -> tuple[Floats, Floats]:
        legal = self._game.legal(states).astype(np.float32)
        return legal / legal.sum(axis=1, keepdims=True), np.zeros(len(states), np.float32)


class OddJudge:
    """An opinion of every position that depends on nothing but the position."""

    def __init__(self, game: Game) -> None:
        self._game = game

    def __call__(self, states: Ints) -> tuple[Floats, Floats]:
        keys = position_keys(states)
        opinions = 1 + (keys[:, None] >> np.arange(self._game.actions, dtype=np.uint64)) % np.uint64(7)
        priors = self._game.legal(states) * opinions
        values = (keys % np.uint64(17)).astype(np.float32) / 16 - 0.5
        return (priors / priors.sum(axis=1, keepdims=True)).astype(np.float32), values


def tiny(run_dir: Any = None, **settings: Any) -> AlphaZeroConfig:
    """Tic-tac-toe, two generations of 16 games."""
    defaults = {
        "generations": 2,
        "games": 16,
        "simulations": 12,
        "fast_simulations": 6,
        "full_share": 0.5,
        "channels": 8,
        "blocks": 1,
        "precision": "float32",
        "batch_size": 16,
        "evaluation_games": 4,
        "evaluation_simulations": 8,
        "opponent_simulations": 10,
        "elo_generations": 2,
        "elo_games": 4,
        "progress": False,
    }
    return AlphaZeroConfig(
        environment="tic_tac_toe", run_dir=None if run_dir is None else str(run_dir), **{**defaults, **settings}
    )
