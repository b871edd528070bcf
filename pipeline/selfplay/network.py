"""One network with two heads, and its use as a judge: half precision where that is fast, and a memory of positions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.agents.vision import dtype_of
from pipeline.config.agents import Precision
from pipeline.games import Floats, Game, Ints

HEAD = 16  # channels that the heads see of the board
STEP = 16  # batches have a multiple of it: for every new size the convolutions are compiled
LEAST = 1e-6  # prior of a legal move that the network gives up on: a search may still find it


class Block(nn.Module):
    """x + f(x), two convolutions; the second starts at 0, so that a deep network starts as a shallow one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu_())).relu_()


class PolicyValueNetwork(nn.Module):
    """Planes [N,C,H,W] → logits [N,A] of the moves, and the value [N] in (−1, 1) for the player to move.

    Residual blocks as in Silver et al. 2017, without batch normalisation: a network this small trains without, and
    judges faster.
    """

    def __init__(self, game: Game, *, channels: int, blocks: int) -> None:
        super().__init__()
        planes, height, width = game.shape
        self.stem = nn.Conv2d(planes, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.looks = nn.Conv2d(channels, 2 * HEAD, 1)
        last = nn.Linear(64, 1)
        self.policy = nn.Linear(HEAD * height * width, game.actions)
        self.value = nn.Sequential(nn.Linear(HEAD * height * width, 64), nn.ReLU(), last)
        nn.init.zeros_(self.policy.weight)
        nn.init.zeros_(last.weight)

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        x = planes.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        x = self.looks(self.blocks(self.stem(x).relu_())).relu_()
        policy, value = x.split(HEAD, dim=1)
        return self.policy(policy.flatten(1)).float(), self.value(value.flatten(1)).float().squeeze(1).tanh()


def legal_logits(logits: Tensor, legal: Tensor) -> Tensor:
    """−∞ where a move isn't legal."""
    return logits.masked_fill(~legal, -torch.inf)


class NetworkJudge:
    """A network's policy and value as priors and values of a search.

    Args:
        game: the rules.
        network: copied; later training doesn't change the judge.
        precision: of the convolutions; "auto" is bfloat16 on processors that multiply matrices of it, ten times as
            fast there, else float32.
        remembered: positions whose judgement is kept, a power of two. Searches of one game after the next, and of its
            next move, meet the same ones again.
    """

    def __init__(
        self, game: Game, network: PolicyValueNetwork, *, precision: Precision = "auto", remembered: int = 1 << 18
    ) -> None:
        self._game = game
        channels, blocks = network.stem.out_channels, len(network.blocks)
        self._network = PolicyValueNetwork(game, channels=channels, blocks=blocks)
        self._network.load_state_dict(network.state_dict())
        self._network.to(dtype_of(precision)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network.eval().requires_grad_(False)
        self._keys = np.zeros(remembered, np.uint64)
        self._priors = np.zeros((remembered, game.actions), np.float32)
        self._values = np.zeros(remembered, np.float32)
        self.asked = self.judged = 0  # positions asked for, and those that the network saw

    def __call__(self, states: Ints) -> tuple[Floats, Floats]:
        keys = position_keys(states)
        places = (keys & np.uint64(len(self._keys) - 1)).astype(np.int64)
        missing = np.flatnonzero(self._keys[places] != keys)
        priors, values = self._priors[places], self._values[places]
        if len(missing):
            fresh, first, back = np.unique(keys[missing], return_index=True, return_inverse=True)
            new_priors, new_values = self._judge(states[missing[first]])
            priors[missing], values[missing] = new_priors[back], new_values[back]
            kept = places[missing[first]]
            # Of two that want one place, every array must keep the same: the last one.
            self._keys[kept], self._priors[kept], self._values[kept] = fresh, new_priors, new_values
            self.judged += len(fresh)
        self.asked += len(states)
        return priors, values

    def _judge(self, states: Ints) -> tuple[Floats, Floats]:
        legal = torch.from_numpy(self._game.legal(states))
        with torch.inference_mode():
            planes = np.zeros((-len(states) // STEP * -STEP, *self._game.shape), np.float32)
            planes[: len(states)] = self._game.planes(states)
            logits, values = (out[: len(states)] for out in self._network(torch.from_numpy(planes)))
            priors = legal_logits(logits, legal).softmax(dim=1).clamp_min_(LEAST) * legal
            return priors.numpy(), values.numpy()


def position_keys(states: Ints) -> NDArray[np.uint64]:
    """A number [N] for each position [N,W], never 0. Two of a million share one with probability 3·10⁻⁸."""
    keys = np.full(len(states), 0x9E3779B97F4A7C15, np.uint64)
    for word in states.astype(np.uint64).T:  # splitmix64's mixing (Steele et al. 2014)
        keys = (keys ^ word) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        keys ^= keys >> np.uint64(31)
    return np.maximum(keys, np.uint64(1))
