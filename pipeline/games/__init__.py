"""Games of two players in turn, as rules for many positions at once."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.games.game import Bools, Floats, Game, GameError, Ints, Symmetry, find_action
from pipeline.games.lines import LineGame
from pipeline.games.pettingzoo import PettingZooGame

__all__ = [
    "GAMES",
    "Bools",
    "Floats",
    "Game",
    "GameError",
    "Ints",
    "LineGame",
    "PettingZooGame",
    "Symmetry",
    "find_action",
    "make_game",
]

GAMES: dict[str, dict[str, Any]] = {
    "tic_tac_toe": {"rows": 3, "columns": 3, "length": 3},
    "connect_four": {"rows": 6, "columns": 7, "length": 4, "gravity": True},
    "gomoku": {"rows": 7, "columns": 7, "length": 5},
}


PETTINGZOO = "pettingzoo:"


def make_game(name: str, options: Mapping[str, Any] | None = None) -> Game:
    """One of GAMES, its board changed by `options`, or `pettingzoo:NAME`.

    Raises:
        GameError: if there is no such game, or it doesn't take the options.
    """
    make: Callable[..., Game]
    if name.startswith(PETTINGZOO):
        make, known = PettingZooGame, {}
        called = name.removeprefix(PETTINGZOO)
    elif name in GAMES:
        make, known, called = LineGame, GAMES[name], name
    else:
        near = difflib.get_close_matches(name, GAMES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise GameError(f"unknown game {name!r}; {hint}known: {', '.join(GAMES)}, pettingzoo:NAME")
    try:
        return make(called, **{**known, **(options or {})})
    except TypeError as problem:
        raise GameError(f"{name} doesn't take these options: {str(problem).partition('() ')[2]}") from None
