"""An episode as pictures: a GIF or MP4 to watch, a strip of frames to print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.agents.agent import Agent
from pipeline.agents.errors import AgentError

Frame = NDArray[np.uint8]  # [H,W,3]
STRIP_FRAMES = 6
MOST_FRAMES = 1_000  # of a film; an hour of pixels fits no memory


def play(agent: Agent, env: gymnasium.Env[Any, Any], *, seed: int, frames: list[Frame] | None = None) -> float:
    """One greedy episode; returns its undiscounted return. `frames`, where given, gets a picture of each of the first
    thousand states.
    """
    observation, _ = env.reset(seed=seed)
    total = 0.0
    ended = False
    while not ended:
        _film(env, frames)
        action = agent.act(np.asarray(observation)[None], greedy=True)[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended = terminated or truncated
    _film(env, frames)
    return total


def save(frames: Sequence[Frame], path: Path, *, fps: int = 30) -> None:
    """Write a GIF or an MP4, by the file's ending.

    Raises:
        AgentError: for another ending, or an MP4 without imageio's ffmpeg.
    """
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise AgentError(f"{path}: a film is a .gif or an .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".gif":
        pictures = [Image.fromarray(frame).quantize(64) for frame in frames]
        # A GIF's clock ticks in hundredths of a second.
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=max(20, 1000 // fps), loop=0)
        return
    try:
        import imageio.v3 as imageio
    except ImportError:
        raise AgentError(f"{path}: an MP4 needs imageio; pip install 'align-pipeline[agents]', or use .gif") from None
    even = [frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]  # H.264 wants even sides
    imageio.imwrite(path, np.stack(even), fps=fps, codec="libx264")


def strip(frames: Sequence[Frame], path: Path, *, count: int = STRIP_FRAMES) -> None:
    """`count` frames from first to last, side by side, as a PNG."""
    chosen = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(count, len(frames)))]
    gap = np.full((chosen[0].shape[0], 6, 3), 255, dtype=np.uint8)
    parts = [part for frame in chosen for part in (frame, gap)][:-1]
    Image.fromarray(np.concatenate(parts, axis=1)).save(path)


def _film(env: gymnasium.Env[Any, Any], frames: list[Frame] | None) -> None:
    if frames is None or len(frames) == MOST_FRAMES:
        return
    frame = env.render()
    if not isinstance(frame, np.ndarray):
        raise AgentError(f"{env.unwrapped}: draws no pixels, so there is nothing to film")
    frames.append(frame.astype(np.uint8))
