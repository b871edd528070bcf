"""What one minibatch minimises: the choice of losses and weights, and the per-step sum of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.rl.kl import kl_k2, kl_k3
from pipeline.rl.losses import clipped_value_loss, policy_gradient_loss, ppo_clip_loss
from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import AGGREGATIONS, Aggregation, check_shape


class Evaluation(NamedTuple):
    """What the policy says now about actions taken earlier. Padding may hold anything finite."""

    logprobs: Tensor  # [B,T] nats, at the sampling temperature
    entropy: Tensor | None  # [B,T] nats; None where nobody asks for it
    values: Tensor | None  # [B,T] return units; None without a critic


class Policy(Protocol):
    """All that `update` asks of a policy."""

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        """Log-probs, entropy and values of `actions` [b,t(,…)], with gradient. t may be below the rollout's T."""
        ...


class Apart(Policy, Protocol):
    """A policy whose critic may share no weights with it: what one keeps for its backward pass needn't wait for the
    other, so `update` evaluates them one after the other where `apart` says so."""

    @property
    def apart(self) -> bool: ...

    def acting(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        """`evaluate` without values."""
        ...

    def values(self, context: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """The values [b,t] of `evaluate` alone."""
        ...


@dataclass(frozen=True)
class Objective:
    """loss = policy − entropy_coef · H + kl_coef · KL + value_coef · value, one normaliser for all.

    Raises:
        ValueError: at construction, naming the field, the value and the fix.
    """

    policy_loss: Literal["ppo_clip", "policy_gradient"] = "ppo_clip"
    clip_low: float = 0.2  # ε_low in [0, 1]
    clip_high: float = 0.2  # ε_high ≥ 0
    aggregate: Aggregation = "token"
    max_length: int | None = None  # L_max in steps, for aggregate="constant"
    value_coef: float = 0.1
    value_clip: float | None = 0.2  # return units; None = plain squared error
    entropy_coef: float = 0.0
    kl_coef: float = 0.0  # of the KL as a LOSS; never together with a KL in the reward
    kl_estimator: Literal["k2", "k3"] | None = None  # against rollout.ref_logprobs

    def __post_init__(self) -> None:
        choices = (
            ("policy_loss", self.policy_loss, ("ppo_clip", "policy_gradient")),
            ("aggregate", self.aggregate, AGGREGATIONS),
            ("kl_estimator", self.kl_estimator, ("k2", "k3", None)),  # k1 is no loss: E ∇k1 = 0
        )
        for name, value, allowed in choices:
            if value not in allowed:
                raise ValueError(f"{name}: got {value!r}; use one of {', '.join(map(repr, allowed))}")
        for name in ("clip_low", "clip_high", "value_coef", "entropy_coef", "kl_coef"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name}: got {number}; use a finite number ≥ 0")
        if self.clip_low > 1:
            raise ValueError(f"clip_low: got {self.clip_low}; use at most 1, for a ratio is never negative")
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"value_clip: got {self.value_clip}; use a positive number, or None for no clipping")
        if self.aggregate == "constant" and (self.max_length is None or self.max_length < 1):
            raise ValueError(f"max_length: got {self.max_length}; aggregate='constant' needs the completion limit, ≥ 1")
        if self.kl_coef > 0 and self.kl_estimator is None:
            raise ValueError(
                f"kl_estimator: got None with kl_coef={self.kl_coef}; use 'k2' (or 'k3', as GRPO published)"
            )


@dataclass(frozen=True)
class Minibatch:
    """Some rows of a rollout with their targets; constants, zero at padding."""

    context: Mapping[str, Tensor]
    actions: Tensor  # [b,t], or [b,t,…] where an action is a vector
    mask: Tensor  # [b,t] bool
    old_logprobs: Tensor  # [b,t]
    advantages: Tensor  # [b,t]
    returns: Tensor | None  # [b,t]
    old_values: Tensor | None  # [b,t]
    ref_logprobs: Tensor | None  # [b,t]

    @classmethod
    def of(cls, rollout: Rollout, advantages: Tensor, returns: Tensor | None) -> "Minibatch":
        """All rows. Raises ValueError if advantages or returns are not [B,T]."""
        mask = rollout.mask
        values, ref = rollout.values, rollout.ref_logprobs
        return cls(
            context=rollout.context,
            actions=rollout.actions,
            mask=mask,
            old_logprobs=_constant("logprobs", rollout.logprobs, mask),
            advantages=_constant("advantages", advantages, mask),
            returns=None if returns is None else _constant("returns", returns, mask),
            old_values=None if values is None else _constant("values", values, mask),
            ref_logprobs=None if ref is None else _constant("ref_logprobs", ref, mask),
        )

    def rows(self, index: Tensor) -> "Minibatch":
        """The rows `index`, trimmed to the longest of them; the context keeps its length."""
        index = index.to(self.mask.device)
        length = int(self.mask[index].sum(dim=1).max())

        def trim(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index, :length]

        return Minibatch(
            context={name: value[index] for name, value in self.context.items()},
            actions=self.actions[index, :length],
            mask=self.mask[index, :length],
            old_logprobs=self.old_logprobs[index, :length],
            advantages=self.advantages[index, :length],
            returns=trim(self.returns),
            old_values=trim(self.old_values),
            ref_logprobs=trim(self.ref_logprobs),
        )


def _constant(name: str, value: Tensor, mask: Tensor) -> Tensor:
    """Detached, 0 at padding."""
    check_shape(name, value, mask.shape)
    return torch.where(mask, value.detach(), torch.zeros_like(value))


def per_step_losses(
    evaluation: Evaluation, batch: Minibatch, objective: Objective, train_policy: bool
) -> dict[str, Tensor]:
    """The weighted sum to minimise, under "loss", and its unweighted parts by name; each [b,t].

    Args:
        evaluation: the policy now; gradient flows through it.
        batch: what was done and the targets; constants.
        objective: which losses, at which weights.
        train_policy: False leaves only the value loss.

    Raises:
        ValueError: if returns are given but the policy has no critic, or an entropy bonus is asked for without entropy.
    """
    losses: dict[str, Tensor] = {}
    terms: list[Tensor] = []
    if train_policy:
        # Equal log-probs at padding keep every ratio there at 1; exp of junk could make inf · 0 = NaN.
        logprobs = torch.where(batch.mask, evaluation.logprobs, batch.old_logprobs)
        if objective.policy_loss == "ppo_clip":
            clip = {"clip_low": objective.clip_low, "clip_high": objective.clip_high}
            policy = ppo_clip_loss(logprobs, batch.old_logprobs, batch.advantages, **clip)
        else:
            policy = policy_gradient_loss(logprobs, batch.advantages)
        losses["policy/loss"] = policy
        terms.append(policy)
        if objective.entropy_coef > 0:
            if evaluation.entropy is None:
                raise ValueError("policy.evaluate().entropy: got None with entropy_coef above 0; give it, or use 0")
            terms.append(-objective.entropy_coef * evaluation.entropy)
        if objective.kl_estimator is not None:
            assert batch.ref_logprobs is not None  # `update` has checked
            estimator = kl_k2 if objective.kl_estimator == "k2" else kl_k3
            losses["policy/kl_loss"] = estimator(logprobs, batch.ref_logprobs)
            if objective.kl_coef > 0:
                terms.append(objective.kl_coef * losses["policy/kl_loss"])
    if batch.returns is not None:
        if evaluation.values is None:
            raise ValueError("policy.evaluate().values: got None; give the policy a critic, or returns=None")
        value = clipped_value_loss(evaluation.values, batch.old_values, batch.returns, clip=objective.value_clip)
        losses["value/loss"] = value
        terms.append(objective.value_coef * value)
    return {"loss": reduce(torch.add, terms), **losses}
