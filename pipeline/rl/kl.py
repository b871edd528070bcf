"""Estimators of KL(π ‖ π_ref) from samples of π, and the controller of its price.

With k1 = log π − log π_ref of the sampled action (Schulman 2020, "Approximating KL Divergence"):

    as a value                       as an autograd loss (samples held fixed)
    k1   unbiased, any sign          E ∇k1 = 0: does nothing but add noise
    k2   biased, ≥ 0                 E ∇k2 = ∇KL(π ‖ ref): the right one
    k3   unbiased, ≥ 0               E ∇k3 = ∇KL(ref ‖ π): the other direction

So: k1, detached, in the reward; k2 as a loss; k3 as a metric, or in GRPO as published. In the reward AND the
loss the price would be paid twice: that is an error, which the configuration refuses.
"""

import math

import torch
from torch import Tensor

from pipeline.rl.tensors import check_shape


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k1 = log π − log π_ref per step. For the reward, with `logprobs` detached; never a loss.

    Args:
        logprobs: [B,T] nats, of π.
        ref_logprobs: [B,T] nats, of the reference at the same temperature; detached here.

    Returns:
        [B,T] nats, any sign.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("ref_logprobs", ref_logprobs, logprobs.shape)
    return logprobs - ref_logprobs.detach()


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k2 = ½ k1² per step. As a loss (to minimise), its expected gradient under π is ∇KL(π ‖ ref).

    Args and Raises as `kl_k1`. Returns [B,T] nats, ≥ 0; a biased value. Gradient flows through `logprobs`.
    """
    return 0.5 * kl_k1(logprobs, ref_logprobs).square()


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k3 = e^{−k1} − 1 + k1 per step. As a loss, its expected gradient under π is ∇KL(ref ‖ π).

    Args and Raises as `kl_k1`. Returns [B,T] nats, ≥ 0; an unbiased value. Gradient flows through `logprobs`.
    Used as a loss in GRPO (Shao et al. 2024, "DeepSeekMath", Eq. 4).
    """
    k1 = kl_k1(logprobs, ref_logprobs)
    return torch.expm1(-k1) + k1


class AdaptiveKL:
    """β ← β · (1 + clip(KL/target − 1, ±0.2) · n / horizon): a slow proportional controller of the KL price.

    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", Sec. 2.2.
    """

    def __init__(self, coef: float, target: float, horizon: float = 10_000) -> None:
        """Start at price `coef`; steer towards `target` nats per sequence, over about `horizon` sequences.

        Raises:
            ValueError: if coef, target or horizon is not a positive finite number.
        """
        for name, value in (("coef", coef), ("target", target), ("horizon", horizon)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: got {value}; use a positive finite number")
        self.coef = float(coef)
        self.target = float(target)
        self.horizon = float(horizon)

    def update(self, observed_kl: float, n: int) -> float:
        """Move the price by what `n` sequences showed, and return it.

        Args:
            observed_kl: mean KL per sequence, nats, in the units of `target`.
            n: number of sequences it was measured on.

        Raises:
            ValueError: if observed_kl is not finite, or n is negative or ≥ 5 · horizon.
        """
        if not math.isfinite(observed_kl):
            raise ValueError(f"observed_kl: got {observed_kl}; stop the run, the policy or reference is broken")
        # Five horizons at once could make the price 0 or negative: a reward for leaving the reference.
        if not 0 <= n < 5 * self.horizon:
            raise ValueError(
                f"n: got {n}; use the number of sequences, from 0 to below 5 · horizon = {5 * self.horizon}"
            )
        error = min(max(observed_kl / self.target - 1.0, -0.2), 0.2)
        self.coef *= 1.0 + error * n / self.horizon
        return self.coef

    def state_dict(self) -> dict[str, float]:
        """All that a resumed run needs."""
        return {"coef": self.coef, "target": self.target, "horizon": self.horizon}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the price; the target and horizon of the saved run come with it.

        Raises:
            KeyError: if an entry is missing.
        """
        self.coef, self.target, self.horizon = state["coef"], state["target"], state["horizon"]
