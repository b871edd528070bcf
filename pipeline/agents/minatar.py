"""MinAtar's games as gymnasium environments: five Atari games reduced to ten by ten cells (Young & Tian 2019).

`MinAtar/Breakout-v1` and so on, with the actions that do something in the game. The package registers its games itself,
but only when asked, and its own environments don't reseed from gymnasium's generator nor say how fast to film them.
"""

import colorsys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from minatar import Environment
from numpy.typing import NDArray

GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
CELL = 24  # pixels of a drawn cell


class MinAtar(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game. An observation is [10, 10, channels] of 0 and 1; a channel is a kind of thing: ball, paddle, bricks.

    Args:
        game: one of GAMES' values.
        sticky: probability that the last action is repeated instead of the chosen one; .1 as published.
        ramping: whether the game becomes harder as it goes on.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  (gymnasium's name and type)

    def __init__(self, game: str, *, sticky: float = 0.1, ramping: bool = True, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._game = Environment(game, sticky_action_prob=sticky, difficulty_ramping=ramping)
        self._actions: list[int] = self._game.minimal_action_set()
        self.action_space = spaces.Discrete(len(self._actions))
        self.observation_space = spaces.Box(0, 1, tuple(self._game.state_shape()), np.uint8)
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin a game."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._game.seed(int(self.np_random.integers(2**31)))
            self._seeded = True
        self._game.reset()
        self._game.last_action = 0
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play one frame."""
        reward, over = self._game.act(self._actions[action])
        return self._seen(), float(reward), bool(over), False, {}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """[240, 240, 3]: a colour a channel, of several things in a cell that of the last channel."""
        seen = self._seen()
        kinds = (seen * (np.arange(seen.shape[2]) + 1)).max(axis=2)
        return palette(seen.shape[2])[kinds].repeat(CELL, axis=0).repeat(CELL, axis=1)

    def _seen(self) -> NDArray[np.uint8]:
        state: NDArray[np.uint8] = self._game.state().view(np.uint8)
        return state


def palette(channels: int) -> NDArray[np.uint8]:
    """[channels + 1, 3] colours: black for nothing, then hues evenly apart."""
    hues = [colorsys.hls_to_rgb(number / channels, 0.6, 0.8) for number in range(channels)]
    return (255 * np.array([(0.0, 0.0, 0.0), *hues])).round().astype(np.uint8)


for _title, _name in GAMES.items():
    gymnasium.register(f"MinAtar/{_title}-v1", entry_point=f"{__name__}:MinAtar", kwargs={"game": _name})
