"""A maze for agents: −1 per step until the goal, from a text file or freshly dug.

    #########
    #S..#...#
    #.#.#.#.#
    #.#...#G#
    #########

`#` is a wall, `S` the start, `G` the goal; `.` or a space is free. What lies outside the text is wall.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left, as (row, column)
WALL, START, GOAL, FREE = "#", "S", "G", ". "
COLOURS = {"wall": (44, 49, 56), "free": (251, 250, 248), "start": (213, 224, 236), "goal": (196, 84, 25)}
AGENT = (43, 108, 176)
TILE = 24  # pixels a cell
DEFAULT = """
##########
S..#.....#
#.##.###.#
#......#.#
#.##.#.#.#
#.#..#...#
#.##.###.#
#......#.G
##########
"""


class Maze(gymnasium.Env[np.int64, np.int64]):
    """Observation: the index of a free cell. Actions: up, right, down, left; a wall leaves the agent where it is.

    `P[s][a]` lists (probability, next state, reward, terminated), as gymnasium's toy-text environments do, so that the
    maze can be solved exactly.

    Args:
        text: the maze; or
        file: a text file with it; or
        size: (rows, columns) of corridors, to dig one; or none of the three for a small default maze.
        loops: share of inner walls broken through in a dug maze, in [0, 1]; 0 leaves exactly one way.
        seed: of the digging.
        render_mode: "rgb_array" or "ansi".

    Raises:
        ValueError: unless there is one start, one goal and a way between them.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 8}  # noqa: RUF012  (gymnasium's declaration)

    def __init__(
        self,
        text: str | None = None,
        file: str | None = None,
        size: Sequence[int] | None = None,
        loops: float = 0.0,
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        if sum(source is not None for source in (text, file, size)) > 1:
            raise ValueError("maze: give one of text, file and size, or none for the default maze")
        if file is not None:
            text = read(file)
        elif size is not None:
            text = dig(size[0], size[1], loops=loops, seed=seed)
        self.rows = parse(text if text is not None else DEFAULT)
        self.render_mode = render_mode
        self.cells = [(r, c) for r, row in enumerate(self.rows) for c, mark in enumerate(row) if mark != WALL]
        self.index = {cell: number for number, cell in enumerate(self.cells)}
        self.start, self.goal = (self.index[_find(self.rows, mark)] for mark in (START, GOAL))
        self.observation_space = spaces.Discrete(len(self.cells))
        self.action_space = spaces.Discrete(len(MOVES))
        self.P = {s: {a: [self._outcome(s, a)] for a in range(len(MOVES))} for s in range(len(self.cells))}
        self.state = self.start

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Back to the start."""
        super().reset(seed=seed)
        self.state = self.start
        return np.int64(self.state), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """One move: reward −1, terminated on the goal."""
        _, self.state, reward, terminated = self.P[self.state][int(action)][0]
        return np.int64(self.state), reward, terminated, False, {}

    def render(self) -> Any:
        """The maze with the agent in it, as text or as pixels [H,W,3]."""
        at = self.cells[self.state]
        if self.render_mode == "ansi":
            lines = [list(row) for row in self.rows]
            lines[at[0]][at[1]] = "A"
            return "\n".join("".join(line) for line in lines)
        image = self.picture()
        r, c = (TILE * k for k in at)
        image[r + 5 : r + TILE - 5, c + 5 : c + TILE - 5] = AGENT
        return image

    def picture(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The maze without the agent, [H,W,3]."""
        kinds = {WALL: "wall", START: "start", GOAL: "goal"}
        colours = [[COLOURS[kinds.get(mark, "free")] for mark in row] for row in self.rows]
        return np.array(colours, dtype=np.uint8).repeat(TILE, axis=0).repeat(TILE, axis=1)

    def _outcome(self, state: int, action: int) -> tuple[float, int, float, bool]:
        """Where a move leads; the goal is left by no move."""
        if state == self.goal:
            return 1.0, state, 0.0, True
        (r, c), (dr, dc) = self.cells[state], MOVES[action]
        landing = self.index.get((r + dr, c + dc), state)
        return 1.0, landing, -1.0, landing == self.goal


def read(file: str) -> str:
    """The text of a maze file. Raises ValueError with the path if it can't be read."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"maze file {file}: {problem}") from problem


def parse(text: str) -> list[str]:
    """Rows of equal length, checked.

    Raises:
        ValueError: on an unknown mark, on more or fewer than one start and one goal, or when no way joins them.
    """
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    width = max((len(line) for line in lines), default=0)
    rows = [line.ljust(width, WALL) for line in lines]
    for number, row in enumerate(rows, start=1):
        for mark in row:
            if mark not in WALL + START + GOAL + FREE:
                raise ValueError(f"maze line {number}: unknown mark {mark!r}; use # S G . or a space")
    for mark, name in ((START, "start (S)"), (GOAL, "goal (G)")):
        count = sum(row.count(mark) for row in rows)
        if count != 1:
            raise ValueError(f"maze: got {count} of {name}, need exactly one")
    if shortest(rows) is None:
        raise ValueError("maze: no way leads from S to G; open a wall")
    return rows


def shortest(rows: Sequence[str]) -> int | None:
    """Steps of the shortest way from S to G, or None if there is none (breadth-first search)."""
    start, goal = _find(rows, START), _find(rows, GOAL)
    steps, queue = {start: 0}, deque([start])
    while queue:
        r, c = cell = queue.popleft()
        if cell == goal:
            return steps[cell]
        for dr, dc in MOVES:
            near = (r + dr, c + dc)
            inside = 0 <= near[0] < len(rows) and 0 <= near[1] < len(rows[0])
            if inside and rows[near[0]][near[1]] != WALL and near not in steps:
                steps[near] = steps[cell] + 1
                queue.append(near)
    return None


def dig(height: int, width: int, *, loops: float = 0.0, seed: int = 0) -> str:
    """A random maze of height × width corridors by depth-first digging; S top left, G bottom right.

    Raises:
        ValueError: if a side is below 2, or loops lies outside [0, 1].
    """
    if min(height, width) < 2:
        raise ValueError(f"maze size: got {height} × {width}; use at least 2 × 2")
    if not 0.0 <= loops <= 1.0:
        raise ValueError(f"loops: got {loops}; use a share in [0, 1]")
    rng = np.random.default_rng(seed)
    grid = [[WALL] * (2 * width + 1) for _ in range(2 * height + 1)]
    grid[1][1] = "."
    path = [(0, 0)]
    while path:
        r, c = path[-1]
        fresh = [
            (dr, dc)
            for dr, dc in MOVES
            if 0 <= r + dr < height and 0 <= c + dc < width and grid[2 * (r + dr) + 1][2 * (c + dc) + 1] == WALL
        ]
        if not fresh:
            path.pop()
            continue
        dr, dc = fresh[rng.integers(len(fresh))]
        grid[2 * r + 1 + dr][2 * c + 1 + dc] = grid[2 * (r + dr) + 1][2 * (c + dc) + 1] = "."
        path.append((r + dr, c + dc))
    for r in range(1, 2 * height):
        for c in range(1, 2 * width):
            if grid[r][c] == WALL and (r + c) % 2 and rng.random() < loops:  # a wall between two corridors
                grid[r][c] = "."
    grid[1][1], grid[-2][-2] = START, GOAL
    return "\n".join("".join(row) for row in grid)


def _find(rows: Sequence[str], mark: str) -> tuple[int, int]:
    return next((r, row.index(mark)) for r, row in enumerate(rows) if mark in row)


gymnasium.register(id="Maze-v0", entry_point="pipeline.agents.maze:Maze", max_episode_steps=500)
