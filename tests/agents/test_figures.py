"""Curves and mazes are drawn from the right numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.agents import film
from pipeline.agents.errors import AgentError
from pipeline.agents.figures import Curve, interval, learning_curves, maze_views
from pipeline.agents.maze import Maze


def test_the_interval_is_that_of_the_mean_over_seeds() -> None:
    steps = list(range(0, 1000, 10))
    curves = [Curve(steps, [level] * len(steps)) for level in (1.0, 2.0, 3.0)]
    grid, mean, low, high = interval(curves)
    assert (grid[0], grid[-1]) == (0, 990)
    assert mean == pytest.approx(np.full(100, 2.0))
    half = 4.303 * 1.0 / 3**0.5  # t(.975, 2) · s / √3
    assert high - mean == pytest.approx(np.full(100, half), abs=1e-3)
    assert mean - low == pytest.approx(np.full(100, half), abs=1e-3)
    alone = interval(curves[:1])
    assert (alone[1] == alone[2]).all()


def test_curves_are_smoothed_backwards_only() -> None:
    steps = list(range(100))
    curve = Curve(steps, [0.0] * 50 + [1.0] * 50)
    grid, mean, _, _ = interval([curve])
    assert mean[grid < 49].max() == 0.0
    assert mean[grid > 56].min() == 1.0


def test_pictures_are_written(tmp_path: Path) -> None:
    curve = Curve([0, 50, 100], [0.0, 1.0, 2.0])
    learning_curves({"a": [curve, curve], "b": [curve]}, "task", tmp_path / "curve.png")
    maze = Maze()
    q = torch.zeros(len(maze.cells), 4)
    seen = torch.zeros_like(q, dtype=torch.bool)
    maze_views(maze, q, tmp_path / "maze.png", seen=seen, planned=q.amax(1))
    for name in ("curve.png", "maze.png"):
        image = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert image.std() > 10  # not one colour


def test_a_film_and_a_strip(tmp_path: Path) -> None:
    frames = [np.full((20, 30, 3), 20 * number, dtype=np.uint8) for number in range(10)]
    film.save(frames, tmp_path / "film.gif", fps=10)
    with Image.open(tmp_path / "film.gif") as gif:
        assert getattr(gif, "n_frames") == 10  # noqa: B009
        assert gif.info["duration"] == 100
    film.strip(frames, tmp_path / "strip.png", count=3)
    assert Image.open(tmp_path / "strip.png").size == (3 * 30 + 2 * 6, 20)
    with pytest.raises(AgentError, match=r"\.gif or an \.mp4"):
        film.save(frames, tmp_path / "film.avi")


def test_an_mp4(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((33, 31, 3), 20 * number, dtype=np.uint8) for number in range(10)]
    film.save(frames, tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size > 500
