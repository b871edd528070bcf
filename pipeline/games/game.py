"""What self-play asks of a game: two players in turn, one wins or neither does, and everybody sees everything."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


class GameError(ValueError):
    """A game that there isn't, that isn't one of two players in turn, or a move that can't be played."""


@dataclass(frozen=True)
class Symmetry:
    """A position seen otherwise that is as good: turned, or in a mirror.

    Attributes:
        cells: [H·W]; cell i of the picture shows what cell cells[i] did.
        actions: [A]; action i there is action actions[i] here.
    """

    cells: Ints
    actions: Ints


class Game(Protocol):
    """Rules for N positions at once. A position is a row of integers [W] that says all: nothing changes it.

    Values are of the player to move, 1 = it wins, −1 = it loses, 0 = a draw; what is good for one is as bad for the
    other. After every move the other one is to move.
    """

    name: str
    actions: int  # A
    shape: tuple[int, int, int]  # of one position's planes: C, H, W
    symmetries: tuple[Symmetry, ...]  # the first one changes nothing

    def start(self, count: int) -> Ints:
        """[count,W], as every game begins."""
        ...

    def legal(self, states: Ints) -> Bools:
        """[N,A]; says nothing of positions that are over."""
        ...

    def play(self, states: Ints, actions: Ints) -> Ints:
        """[N,W], the positions after legal `actions` [N] in [N,W]."""
        ...

    def outcome(self, states: Ints) -> tuple[Bools, Floats]:
        """Which are over, [N], and what they are worth to the player to move, [N], 0 where they go on."""
        ...

    def planes(self, states: Ints) -> Floats:
        """[N,C,H,W], what a network sees, from the view of the player to move."""
        ...

    def label(self, action: int) -> str:
        """What people call the move."""
        ...

    def show(self, state: Ints) -> str:
        """A position [W] in lines of text."""
        ...


def find_action(game: Game, state: Ints, text: str) -> int:
    """The legal move that a person means by its label.

    Raises:
        GameError: if there is none; the moves that there are are named.
    """
    legal = [int(action) for action in np.flatnonzero(game.legal(state[None])[0])]
    labels = {game.label(action): action for action in legal}
    if text.strip().lower() not in labels:
        raise GameError(f"{text.strip()!r} is no legal move here; there are {' '.join(labels)}")
    return labels[text.strip().lower()]
