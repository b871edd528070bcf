"""Learning from self-play: a window of positions, a network that fits them, and slower weights that play."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.agents.vision import dtype_of
from pipeline.config import AlphaZeroConfig
from pipeline.games import Game
from pipeline.rl.action_values import polyak_step
from pipeline.rl.search import search_loss
from pipeline.selfplay.episodes import Examples, join
from pipeline.selfplay.network import PolicyValueNetwork, legal_logits

LEAST_RATE = 0.05  # of the learning rate, at the end of the cosine


class Learner:
    """Network, its slower average, optimiser and window.

    Args:
        game: the rules.
        config: sizes and rates.
    """

    def __init__(self, game: Game, config: AlphaZeroConfig) -> None:
        self._game, self._config = game, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = PolicyValueNetwork(game, channels=config.channels, blocks=config.blocks)
        self.average = PolicyValueNetwork(game, channels=config.channels, blocks=config.blocks)
        self.average.load_state_dict(self.network.state_dict())
        self.average.requires_grad_(False)
        for network in (self.network, self.average):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.window: Examples | None = None
        self.seen = 0  # positions so far

    def take_in(self, examples: Examples) -> None:
        """Add positions to the window; the oldest leave."""
        self.seen += len(examples)
        size = max(self._config.window, int(self._config.window_share * self.seen))
        joined = examples if self.window is None else join([self.window, examples])
        self.window = joined.rows(slice(max(0, len(joined) - size), None))

    def learn(self, fresh: int, done: float, rng: np.random.Generator) -> dict[str, float]:
        """So many steps that each of `fresh` new positions is seen `passes` times on the average.

        Args:
            fresh: positions that were taken in since the last time.
            done: share of the training, in [0, 1], that is over.
            rng: of the draws.

        Returns:
            Means of policy loss, value loss and gradient norm.
        """
        config = self._config
        rate = config.learning_rate
        if config.schedule == "cosine":
            rate *= LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        steps = max(1, round(fresh * config.passes / config.batch_size))
        self.network.train()
        sums = np.sum([self._step(rng) for _ in range(steps)], axis=0) / steps
        return {**dict(zip(("policy_loss", "value_loss", "grad_norm"), sums.tolist(), strict=True)), "rate": rate}

    def _step(self, rng: np.random.Generator) -> tuple[float, float, float]:
        config = self._config
        planes, legal, policies, targets = self._batch(rng)
        half = dtype_of(config.precision) == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits, values = self.network(planes)
        loss, policy_loss, value_loss = search_loss(
            legal_logits(logits, legal), values, policies, targets, value_coef=config.value_coef
        )
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
        self._optimizer.step()
        polyak_step(self.average.parameters(), self.network.parameters(), config.averaging)
        return policy_loss.item(), value_loss.item(), norm.item()

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Planes, legal moves, policies and targets of positions drawn from the window, each in some symmetry."""
        assert self.window is not None
        batch = self.window.rows(rng.integers(len(self.window), size=self._config.batch_size))
        share = self._config.root_value_share
        targets = (1 - share) * batch.outcomes + share * batch.roots
        planes, legal, policies = self._game.planes(batch.states), self._game.legal(batch.states), batch.policies
        flat = planes.reshape(*planes.shape[:2], -1)
        which = rng.integers(len(self._game.symmetries), size=len(batch))
        for number, symmetry in enumerate(self._game.symmetries[1:], start=1):
            rows = np.flatnonzero(which == number)
            flat[rows] = flat[rows][:, :, symmetry.cells]
            legal[rows], policies[rows] = legal[rows][:, symmetry.actions], policies[rows][:, symmetry.actions]
        return torch.from_numpy(planes), torch.from_numpy(legal), torch.from_numpy(policies), torch.from_numpy(targets)

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs to go on to the same bits."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        if self.window is not None:
            tensors |= {f"window.{name}": torch.from_numpy(value) for name, value in vars(self.window).items()}
        tensors["seen"] = torch.tensor(self.seen)
        return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises KeyError or RuntimeError if it doesn't fit."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}, "window": {}}
        for name, value in tensors.items():
            head, _, rest = name.partition(".")
            if rest:
                parts[head][rest] = value
        self.network.load_state_dict(parts["network"])
        self.average.load_state_dict(parts["average"])
        saved: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            index, _, rest = name.partition(".")
            saved.setdefault(int(index), {})[rest] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": saved})
        self.window = Examples(**{name: value.numpy() for name, value in parts["window"].items()})
        self.seen = int(tensors["seen"])
