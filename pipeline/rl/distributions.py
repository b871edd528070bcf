"""What a policy samples actions from: a softmax over choices, a Gaussian, a Gaussian squashed into (−1, 1).

Written out, because `torch.distributions` costs more than a small network's forward pass; the tests compare the two.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.rl.losses import categorical_entropy

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_QUANTILES = 64  # midpoints for the expectation in the squashed entropy


class Distribution(Protocol):
    """π(·|s) for a batch of states."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Actions, without gradient."""
        ...

    def mode(self) -> Tensor:
        """The likeliest actions (of a squashed Gaussian: the squashed mean)."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(a|s), nats; gradient flows to the parameters."""
        ...

    def entropy(self) -> Tensor:
        """H[π(·|s)], nats; gradient flows to the parameters."""
        ...


@dataclass(frozen=True)
class Categorical:
    """π(a) = softmax(logits)_a; actions are int64."""

    logits: Tensor  # [..., A]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[...] by racing exponential clocks: argmax_a π(a) / E_a with E_a ~ Exp(1) draws a with probability π(a)."""
        clocks = torch.empty_like(self.logits, requires_grad=False).exponential_(generator=generator)
        return (torch.softmax(self.logits.detach(), dim=-1) / clocks).argmax(dim=-1)

    def mode(self) -> Tensor:
        """[...]."""
        return self.logits.detach().argmax(dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """[...] for [...] int64 actions."""
        return torch.log_softmax(self.logits, dim=-1).gather(-1, actions[..., None]).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...]."""
        return categorical_entropy(self.logits)


@dataclass(frozen=True)
class DiagonalGaussian:
    """a_i ~ N(μ_i, σ_i²), independent; log-probs and entropies are summed over the D coordinates."""

    mean: Tensor  # [..., D]
    log_std: Tensor  # [D] or [..., D]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D]."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean.detach() + noise * self.log_std.detach().exp()

    def mode(self) -> Tensor:
        """[..., D]."""
        return self.mean.detach()

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(a) = Σ_i −½((a_i − μ_i)/σ_i)² − log σ_i − ½ log 2π, [...]."""
        deviation = (actions - self.mean) * (-self.log_std).exp()
        return (-0.5 * deviation.square() - self.log_std - _HALF_LOG_2PI).sum(dim=-1)

    def entropy(self) -> Tensor:
        """H = Σ_i log σ_i + ½ log 2πe, [...]."""
        return (self.log_std + 0.5 + _HALF_LOG_2PI).expand(self.mean.shape).sum(dim=-1)


@dataclass(frozen=True)
class SquashedGaussian:
    """a = tanh(z), z ~ N(μ, σ²): bounded actions (Haarnoja et al. 2018, App. C).

    ACTIONS ARE KEPT AS z: tanh⁻¹ of a float near ±1 is lost. `squash` gives what the environment gets.
    """

    mean: Tensor  # [..., D], of z
    log_std: Tensor  # [D] or [..., D], of z

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] z."""
        return self._gaussian.sample(generator)

    def mode(self) -> Tensor:
        """[..., D] μ."""
        return self.mean.detach()

    def log_prob(self, actions: Tensor) -> Tensor:
        """log π(a) = log N(z) − Σ_i log(1 − tanh² z_i), [...], for [..., D] z."""
        return self._gaussian.log_prob(actions) - _log_slope(actions).sum(dim=-1)

    def entropy(self) -> Tensor:
        """H = H[z] + Σ_i E log(1 − tanh² z_i), the expectation over 64 quantiles of z, [...]."""
        levels = (torch.arange(_QUANTILES, device=self.mean.device, dtype=self.mean.dtype) + 0.5) / _QUANTILES
        z = self.mean[..., None] + self.log_std.exp().expand(self.mean.shape)[..., None] * torch.special.ndtri(levels)
        return self._gaussian.entropy() + _log_slope(z).mean(dim=-1).sum(dim=-1)

    @staticmethod
    def squash(z: Tensor) -> Tensor:
        """tanh z, in (−1, 1)."""
        return z.tanh()

    @property
    def _gaussian(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std)


def _log_slope(z: Tensor) -> Tensor:
    """log(1 − tanh² z) = 2 (log 2 − z − softplus(−2z)), without the cancellation."""
    return 2.0 * (math.log(2.0) - z - F.softplus(-2.0 * z))
