"""The maze: what a step does, what a bad text says, and that digging always leaves a way."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agents.maze import Maze, dig, parse, shortest

TEXT = """
#####
#S.G#
#####
"""


def test_a_walk_to_the_goal_costs_its_steps_and_ends() -> None:
    maze = Maze(text=TEXT)
    state, _ = maze.reset()
    assert state == 0
    assert maze.step(np.int64(0)) == (0, -1.0, False, False, {})  # a wall above
    assert maze.step(np.int64(1)) == (1, -1.0, False, False, {})
    assert maze.step(np.int64(1)) == (2, -1.0, True, False, {})


def test_gymnasium_accepts_it_and_a_clock_truncates_it() -> None:
    check_env(Maze(text=TEXT, render_mode="rgb_array"), skip_render_check=False)
    env = gymnasium.make("Maze-v0", text=TEXT, max_episode_steps=2)
    env.reset()
    env.step(np.int64(0))
    assert env.step(np.int64(0))[2:4] == (False, True)


def test_the_pictures_show_the_agent() -> None:
    maze = Maze(text=TEXT, render_mode="ansi")
    assert maze.render() == "#####\n#A.G#\n#####"
    maze.render_mode = "rgb_array"
    image = maze.render()
    assert image.shape == (3 * 24, 5 * 24, 3)
    assert (image != maze.picture()).any()


def test_short_lines_and_the_outside_are_wall() -> None:
    maze = Maze(text="S.\n.G.")
    assert maze.rows == ["S.#", ".G."]
    assert shortest(maze.rows) == 2
    assert maze.P[maze.start][0] == [(1.0, maze.start, -1.0, False)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("S.x.G", "line 1: unknown mark 'x'"),
        ("S...", r"got 0 of goal \(G\)"),
        ("SS.G", r"got 2 of start \(S\)"),
        ("S#G", "no way leads from S to G"),
        ("", r"got 0 of start \(S\)"),
    ],
)
def test_a_bad_maze_is_one_clear_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_one_source_is_enough_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of text, file and size"):
        Maze(text=TEXT, size=(2, 2))
    assert shortest(Maze().rows) == 15
    with pytest.raises(ValueError, match=r"none\.txt"):
        Maze(file=str(tmp_path / "none.txt"))
    (tmp_path / "maze.txt").write_text(TEXT)
    assert Maze(file=str(tmp_path / "maze.txt")).rows == Maze(text=TEXT).rows


@given(st.integers(2, 8), st.integers(2, 8), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 1000))
@settings(max_examples=40)
def test_a_dug_maze_has_a_way_between_all_corridors(height: int, width: int, loops: float, seed: int) -> None:
    rows = parse(dig(height, width, loops=loops, seed=seed))
    free = sum(mark != "#" for row in rows for mark in row)
    if loops == 0:  # a tree: one passage fewer than corridors
        assert free == 2 * height * width - 1
    assert all(rows[2 * r + 1][2 * c + 1] != "#" for r in range(height) for c in range(width))
    assert dig(height, width, loops=loops, seed=seed) == dig(height, width, loops=loops, seed=seed)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        dig(1, 5)
    with pytest.raises(ValueError, match="loops"):
        dig(3, 3, loops=2)
