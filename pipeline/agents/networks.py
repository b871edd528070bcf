"""Small networks for small tasks: what an agent sees becomes a vector, a vector becomes choices or values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from pipeline.agents.errors import AgentError
from pipeline.agents.mlp import MLPs
from pipeline.agents.vision import Network, PixelNetworks, PixelQNetwork, Vision, choose
from pipeline.config.agents import Precision
from pipeline.rl.action_values import dueling
from pipeline.rl.distributions import Categorical, DiagonalGaussian, Distribution, SquashedGaussian
from pipeline.rl.moments import RunningMoments
from pipeline.rl.objective import Evaluation

HIDDEN = (64, 64)  # widths of a perceptron for which none are given


class Encoder:
    """Observations → vectors [..., width] float32: one-hot for a Discrete space, flat and perhaps normalised for a Box.

    Args:
        space: of one observation.
        normalize: keep running moments and use them. They change in `watch` only.
        pictures: leave them as they are: bytes, for `Vision`.

    Raises:
        AgentError: for another kind of space.
    """

    def __init__(self, space: spaces.Space[Any], *, normalize: bool = False, pictures: bool = False) -> None:
        if pictures and normalize:
            raise AgentError("normalize_observations: pixels are scaled by their range; use false")
        self._pictures = pictures
        self._choices = int(space.n) if isinstance(space, spaces.Discrete) else None
        if self._choices is None and not isinstance(space, spaces.Box):
            raise AgentError(
                f"observation space {space}: only Box and Discrete are known; wrap the environment, for example "
                "with gymnasium.wrappers.FlattenObservation"
            )
        self._dims = len(space.shape or ())
        self.width = self._choices or int(np.prod(space.shape or (1,)))
        self.moments = RunningMoments((self.width,)) if normalize and self._choices is None else None

    def __call__(self, observations: Tensor) -> Tensor:
        """[..., *shape] → [..., width]; pictures as they are."""
        if self._pictures:
            return observations
        if self._choices is not None:
            return F.one_hot(observations.long(), self._choices).float()
        flat = self._flat(observations)
        return flat if self.moments is None else self.moments.normalize(flat)

    def watch(self, observations: Tensor) -> None:
        """Let a batch of raw observations move the moments."""
        if self.moments is not None:
            self.moments.update(self._flat(observations).reshape(-1, self.width))

    def _flat(self, observations: Tensor) -> Tensor:
        if self._dims != 1:
            leading = observations.shape[: observations.ndim - self._dims]
            observations = observations.reshape(*leading, self.width)
        return observations.float()


class QNetwork(nn.Module):
    """Q(s, ·): one head, or a value and an advantage head whose sum is `rl.action_values.dueling`."""

    def __init__(self, width: int, actions: int, hidden: Sequence[int], *, dueling: bool = False) -> None:
        super().__init__()
        self.trunk: MLPs | None = None
        if dueling:
            self.trunk = MLPs([[width, *hidden[:1]]], "relu", last_gains=[None])
            width, hidden = hidden[0], hidden[1:]
        outputs = [actions, 1] if dueling else [actions]
        self.heads = MLPs([[width, *hidden, count] for count in outputs], "relu", last_gains=[None] * len(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., A]."""
        if self.trunk is None:
            q: Tensor = self.heads(x)[0]
            return q
        advantages, values = self.heads(torch.relu(self.trunk(x)[0]))
        return dueling(values, advantages)

    def backward(self, x: Tensor, derivative: Callable[[Tensor], tuple[Tensor, Tensor]]) -> float:
        """Leave ∂loss/∂θ with the parameters, which have no gradient yet, from Q(x, ·) → loss and ∂loss/∂Q; returns
        the loss."""
        if self.trunk is None:
            return self.heads.backward(x, derivative)
        q = self(x)
        loss, grad = derivative(q.detach())
        q.backward(grad)
        return loss.item()


def q_network(
    space: spaces.Space[Any],
    actions: int,
    hidden: Sequence[int] | None,
    *,
    network: Network,
    dueling: bool,
    precision: Precision,
) -> "QNetwork | PixelQNetwork":
    """Q(s, ·) for encoded observations of a space; see `vision.choose` and `Encoder`."""
    architecture = choose(space, network)
    if architecture is None:
        return QNetwork(Encoder(space).width, actions, HIDDEN if hidden is None else hidden, dueling=dueling)
    return PixelQNetwork(Vision(space, architecture, hidden, precision=precision), actions, dueling=dueling)


POLICY, CRITIC = 0, 1  # of an ActorCritic's networks


class ActorCritic(nn.Module):
    """A policy and, where asked, a critic, each a network of its own; the `Policy` that `rl.update` trains.

    Args:
        observation_space: see `Encoder`.
        action_space: Discrete (softmax) or a bounded or unbounded Box (Gaussian with a learned σ per coordinate).
        hidden: widths, for both networks; None = 64 and 64, or as published for the convolutions.
        network: see `vision.choose`; policy and critic share their convolutions and the layers behind them.
        precision: see `Vision`.
        activation: "tanh" or "relu".
        critic: whether there is one.
        squash: tanh the Gaussian into the bounds instead of clipping what lies outside.
        initial_log_std: log σ before learning.
        normalize: observations by running moments.
        entropy_gradient: whether the entropy of `evaluate` will be part of a loss; where not, `watch_entropy` says
            whether there is any.

    Raises:
        AgentError: for another kind of action space, or squash without finite bounds.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        hidden: Sequence[int] | None = None,
        network: Network = "auto",
        precision: Precision = "float32",
        activation: str = "tanh",
        critic: bool = True,
        squash: bool = False,
        initial_log_std: float = 0.0,
        normalize: bool = False,
        entropy_gradient: bool = True,
    ) -> None:
        super().__init__()
        self.entropy_gradient, self.watch_entropy = entropy_gradient, True
        architecture = choose(observation_space, network)
        self.encode = Encoder(observation_space, normalize=normalize, pictures=architecture is not None)
        self.discrete = isinstance(action_space, spaces.Discrete)
        self._squash = squash and not self.discrete
        if isinstance(action_space, spaces.Discrete):
            outputs = int(action_space.n)
        elif isinstance(action_space, spaces.Box):
            outputs = int(np.prod(action_space.shape))
            if squash and not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
                raise AgentError(f"squash: action space {action_space} has no finite bounds; use squash=false")
            self.log_std = nn.Parameter(torch.full((outputs,), float(initial_log_std)))
            self.register_buffer("low", torch.as_tensor(action_space.low).flatten(), persistent=False)
            self.register_buffer("high", torch.as_tensor(action_space.high).flatten(), persistent=False)
            self._shape = action_space.shape
        else:
            raise AgentError(f"action space {action_space}: only Discrete and Box are known")
        self.critic = critic
        heads = [(outputs, 0.01), (1, 1.0)] if critic else [(outputs, 0.01)]
        counts, gains = zip(*heads, strict=True)
        self.networks: MLPs | PixelNetworks
        if architecture is None:
            sizes = [[self.encode.width, *(HIDDEN if hidden is None else hidden), count] for count in counts]
            self.networks = MLPs(sizes, activation, last_gains=gains)
        else:
            vision = Vision(observation_space, architecture, hidden, orthogonal=True, precision=precision)
            self.networks = PixelNetworks(vision, counts, last_gains=gains)

    @torch.no_grad()
    def distribution(self, states: Tensor) -> Distribution:
        """π(·|s) for [...] states as the environment gives them, without gradient."""
        return self._distribution(self.networks.only(POLICY, self.encode(states)))

    def _distribution(self, outputs: Tensor) -> Distribution:
        if self.discrete:
            return Categorical(outputs)
        return (SquashedGaussian if self._squash else DiagonalGaussian)(outputs, self.log_std)

    @torch.no_grad()
    def second_look(
        self, states: Tensor, actions: Tensor, successors: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probs of actions, V(s) and V(s'), [b,t] each, without gradient; values None without a critic."""
        x = self.encode(states)
        logprobs = self._distribution(self.networks.only(POLICY, x)).log_prob(actions)
        if not self.critic:
            return logprobs, None, None
        both = self.networks.only(CRITIC, torch.cat([x, self.encode(successors)]))
        values, following = both.squeeze(-1).chunk(2)
        return logprobs, values, following

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        """Log-probs, entropy and values of actions [b,t(,D)] in `context["states"]` [b,T,…], with gradient."""
        outputs = self.networks(self.encode(context["states"][:, : actions.shape[1]]))
        distribution = self._distribution(outputs[POLICY])
        entropy = None
        if self.entropy_gradient:
            entropy = distribution.entropy()
        elif self.watch_entropy:
            with torch.no_grad():
                entropy = distribution.entropy()
        values = outputs[CRITIC].squeeze(-1) if self.critic else None
        return Evaluation(distribution.log_prob(actions), entropy, values)

    def to_environment(self, actions: Tensor) -> Any:
        """What the environment gets for sampled actions [E(,D)]: squashed or clipped into its bounds."""
        if self.discrete:
            return actions.numpy()
        if self._squash:
            share = (SquashedGaussian.squash(actions) + 1) / 2
            bounded = self.low + share * (self.high - self.low)
        else:
            bounded = actions.clamp(self.low, self.high)
        return bounded.reshape(len(actions), *self._shape).numpy()
