"""Games of lines: put a stone, and win with so many of yours in a row. Positions are bits, and checked many at once.

A position is two words of 64 bits: the stones of the player to move, and those of the other. The cell in row r,
counted from below, of column c is bit c·(rows + 1) + r. The bit above each column stays empty, so that no line leads
over an edge.
"""

from typing import Any

import numpy as np

from pipeline.games.game import Bools, Floats, GameError, Ints, Symmetry

MARKS = "XO"


class LineGame:
    """Rows × columns, `length` in a row win (an m,n,k-game), the stones falling to the bottom with `gravity`.

    With gravity an action is a column, else a cell, row by row from below.

    Raises:
        GameError: if the board doesn't fit into 63 bits, or no line fits on it.
    """

    def __init__(self, name: str, *, rows: int, columns: int, length: int, gravity: bool = False) -> None:
        if min(rows, columns) < 1 or (rows + 1) * columns > 63:
            raise GameError(f"{name}: {rows} rows and {columns} columns don't fit; (rows + 1) · columns is at most 63")
        if not 2 <= length <= max(rows, columns):
            raise GameError(f"{name}: no line of {length} fits on {rows} rows and {columns} columns")
        self.name, self._rows, self._columns = name, rows, columns
        self._length, self._gravity = length, gravity
        self.shape = (3, rows, columns)
        cells = np.arange(rows * columns)
        self._bits = (cells % columns) * (rows + 1) + cells // columns  # of each cell, [H·W]
        one = np.int64(1)
        self._full = np.bitwise_or.reduce(one << self._bits)
        self._bottom = one << (np.arange(columns) * (rows + 1))  # lowest cell of each column
        self._column = self._bottom * ((1 << rows) - 1)  # all its cells
        self._moves = self._bottom << (rows - 1) if gravity else one << self._bits  # that must be empty for an action
        self.actions = columns if gravity else rows * columns
        # Up, the diagonals, and across; by how many bits to shift, one after the other.
        steps = (1, rows, rows + 1, rows + 2)
        self._directions = [[step * cells for cells in _halvings(length)] for step in steps]
        self.symmetries = self._find_symmetries()

    def start(self, count: int) -> Ints:
        return np.zeros((count, 2), np.int64)

    def legal(self, states: Ints) -> Bools:
        taken = states[:, 0] | states[:, 1]
        return (taken[:, None] & self._moves) == 0

    def play(self, states: Ints, actions: Ints) -> Ints:
        mine, theirs = states[:, 0], states[:, 1]
        if self._gravity:
            # Adding to the lowest cell carries over the stones, into the first empty cell.
            taken = mine | theirs
            stone = (taken + self._bottom[actions]) & self._column[actions] & ~taken
        else:
            stone = self._moves[actions]
        after = np.empty_like(states)
        after[:, 0], after[:, 1] = theirs, mine | stone
        return after

    def outcome(self, states: Ints) -> tuple[Bools, Floats]:
        theirs = states[:, 1]  # only who moved last can have made a line
        lines: Any = 0
        for shifts in self._directions:
            run = theirs
            for shift in shifts:
                run = run & (run >> shift)
            lines = lines | run
        lost = lines != 0
        over = lost | ((states[:, 0] | theirs) == self._full)
        return over, -lost.astype(np.float32)

    def planes(self, states: Ints) -> Floats:
        """Mine, theirs, and a board full of 1 for who began, of −1 for the other: it shows the edges, too."""
        planes = np.empty((len(states), 3, len(self._bits)), np.float32)
        planes[:, :2] = (states[:, :, None] >> self._bits) & 1
        stones = planes[:, :2].sum(axis=(1, 2))
        planes[:, 2] = (1 - 2 * (stones % 2))[:, None]
        return planes.reshape(-1, *self.shape)

    def label(self, action: int) -> str:
        """With gravity the column, from 1; else column and row, such as b2."""
        if self._gravity:
            return str(action + 1)
        return f"{chr(ord('a') + action % self._columns)}{action // self._columns + 1}"

    def show(self, state: Ints) -> str:
        mine, theirs = ((state[:, None] >> self._bits) & 1).astype(bool)
        mover = int(mine.sum() + theirs.sum()) % 2
        lines = []
        for row in reversed(range(self._rows)):
            marks = []
            for cell in range(row * self._columns, (row + 1) * self._columns):
                marks.append(MARKS[mover] if mine[cell] else MARKS[1 - mover] if theirs[cell] else "·")
            lines.append(f"{'' if self._gravity else row + 1:>2} {' '.join(marks)}")
        names = [str(c + 1) if self._gravity else chr(ord("a") + c) for c in range(self._columns)]
        return "\n".join([*lines, f"   {' '.join(names)}"])

    def _find_symmetries(self) -> tuple[Symmetry, ...]:
        cells = np.arange(self._rows * self._columns).reshape(self._rows, self._columns)
        if self._gravity:
            pictures = [cells, cells[:, ::-1]]
            actions = [np.arange(self._columns), np.arange(self._columns)[::-1]]
        else:
            turns = range(4) if self._rows == self._columns else (0, 2)
            pictures = [np.rot90(board, turn) for board in (cells, cells[:, ::-1]) for turn in turns]
            actions = [picture.ravel() for picture in pictures]
        return tuple(
            Symmetry(picture.ravel().copy(), action.copy()) for picture, action in zip(pictures, actions, strict=True)
        )


def _halvings(length: int) -> list[int]:
    """Shifts after which a bit stands for `length` in a row: 4 → 1, 2: pairs, and pairs of pairs; 5 → 1, 2, 1."""
    shifts, reach = [], 1
    while reach < length:
        shifts.append(min(reach, length - reach))
        reach += shifts[-1]
    return shifts
