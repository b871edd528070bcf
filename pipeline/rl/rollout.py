"""The core type: what a policy did, and what came of it. Language completions and gym episodes alike."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pipeline.rl.tensors import check_shape

_REAL = ("logprobs", "rewards", "values", "next_values", "ref_logprobs")
_BOOL = ("mask", "terminated", "truncated")


@dataclass(frozen=True, eq=False)  # eq=False: == on tensors has no single truth value
class Rollout:
    """B trajectories, right-padded to T. Gym: B environments, T steps. Language: B completions, T tokens.

    One rule serves both worlds: terminated → discount 0; truncated → λ 0; padding → mask False. A
    completion's last real token is `terminated`; that it ran into the length limit is a separate flag, kept
    outside. Rows may be empty. What stands at padding is never read.

    Raises:
        ValueError: at construction, if a shape, dtype or device disagrees; if the mask has a hole; if an
            ending lies on padding; or if a step is both terminated and truncated.
    """

    context: Mapping[str, Tensor]  # what the policy needs to re-evaluate the actions; leading dim B
    actions: Tensor  # [B,T], or [B,T,…] where an action is a vector
    logprobs: Tensor  # [B,T] nats, of the policy that acted, at its sampling temperature
    rewards: Tensor  # [B,T]
    mask: Tensor  # [B,T] bool; True = a real action. The only mask polarity in the project
    terminated: Tensor  # [B,T] bool; no future value
    truncated: Tensor  # [B,T] bool; cut off, but bootstrap
    values: Tensor | None = None  # [B,T] V(s_t)
    next_values: Tensor | None = None  # [B,T] V(true successor), also across an auto-reset
    ref_logprobs: Tensor | None = None  # [B,T] nats

    def __post_init__(self) -> None:
        _check_layout(self)
        _check_endings(self)

    def __len__(self) -> int:
        """Number of rows B."""
        return self.mask.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Real steps per row, [B] int64."""
        return self.mask.sum(dim=1)

    def to(self, device: torch.device | str) -> "Rollout":
        """The same rollout with every tensor, context included, on `device`."""
        context = {name: value.to(device) for name, value in self.context.items()}
        return replace(self, context=context, **{name: t.to(device) for name, t in self._tensors().items()})

    def select(self, index: Tensor) -> "Rollout":
        """The rows `index` ([b] integers or [B] bool), context sliced too."""
        context = {name: value[index] for name, value in self.context.items()}
        return replace(self, context=context, **{name: t[index] for name, t in self._tensors().items()})

    def with_rewards(
        self, per_step: Tensor, *, final: Tensor | None = None, ref_logprobs: Tensor | None = None
    ) -> "Rollout":
        """r_t = per_step_t, plus the row's final score at its last real step.

        An empty row has no such step: its score is lost.

        Args:
            per_step: [B,T], reward units; padding becomes 0. Detached, for a reward carries no gradient.
            final: [B] score per row, or None.
            ref_logprobs: [B,T] nats, kept for a KL loss; None leaves the present ones.

        Raises:
            ValueError: if a shape disagrees.
        """
        check_shape("per_step", per_step, self.mask.shape)
        rewards = torch.where(self.mask, per_step.detach(), torch.zeros_like(per_step))
        if final is not None:
            check_shape("final", final, (len(self),))
            rewards = rewards + self._last() * final.detach().to(rewards.dtype)[:, None]
        ref = self.ref_logprobs if ref_logprobs is None else ref_logprobs.detach()
        return replace(self, rewards=rewards, ref_logprobs=ref)

    def with_values(self, values: Tensor) -> "Rollout":
        """values = V(s_t); next_values = V of the next real step, 0 after the last; both 0 at padding.

        Detached. Meant for rows that end by themselves, as completions do.

        Args:
            values: [B,T] critic values in return units.

        Raises:
            ValueError: if the shape disagrees, or a step is truncated: its successor's value is not in the
                row.
        """
        check_shape("values", values, self.mask.shape)
        if self.truncated.any():
            raise ValueError(
                f"truncated: got {int(self.truncated.sum())} truncated steps, successors not in the row; "
                "set values and next_values when the Rollout is built"
            )
        values = torch.where(self.mask, values.detach(), torch.zeros_like(values))
        following = torch.zeros_like(values)
        following[:, :-1] = values[:, 1:]
        return replace(self, values=values, next_values=following)

    def flatten(self) -> "Rollout":
        """[B,T] steps → [N,1] rows, one for each real step, in row-major order.

        For gym, where a minibatch mixes steps of all environments. Context needs leading dims [B,T]. Estimate
        advantages BEFORE flattening (no row knows its successor afterwards), and flatten them alike:
        `advantages[rollout.mask][:, None]`.

        Raises:
            ValueError: if a context tensor lacks the leading dims [B,T].
        """
        for name, value in self.context.items():
            if value.shape[:2] != self.mask.shape:
                raise ValueError(
                    f"context[{name!r}]: got shape {tuple(value.shape)}, need leading dims "
                    f"{tuple(self.mask.shape)}; flatten only where every step has its own context"
                )
        context = {name: value[self.mask][:, None] for name, value in self.context.items()}
        return replace(self, context=context, **{name: t[self.mask][:, None] for name, t in self._tensors().items()})

    def _last(self) -> Tensor:
        """[B,T] bool; True at the last real step of each non-empty row."""
        following = torch.zeros_like(self.mask)
        following[:, :-1] = self.mask[:, 1:]
        return self.mask & ~following

    def _tensors(self) -> dict[str, Tensor]:
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in present.items() if isinstance(value, Tensor)}


def _check_layout(rollout: Rollout) -> None:
    """Shapes, dtypes and devices."""
    if rollout.mask.ndim != 2:
        raise ValueError(f"mask: got shape {tuple(rollout.mask.shape)}, need [B,T]; unsqueeze it")
    for name, value in rollout._tensors().items():
        check_shape(name, value, rollout.mask.shape + (value.shape[2:] if name == "actions" else ()))
        if name in _BOOL and value.dtype != torch.bool:
            raise ValueError(f"{name}: got dtype {value.dtype}, need torch.bool; use {name}.bool()")
        if name in _REAL and not value.is_floating_point():
            raise ValueError(f"{name}: got dtype {value.dtype}, need a floating type; use {name}.float()")
        _check_device(name, value, rollout.mask)
    for name, value in rollout.context.items():
        if value.ndim == 0 or value.shape[0] != len(rollout):
            raise ValueError(
                f"context[{name!r}]: got shape {tuple(value.shape)}, need leading dim {len(rollout)}; "
                "give one entry per row"
            )
        _check_device(f"context[{name!r}]", value, rollout.mask)


def _check_device(name: str, value: Tensor, mask: Tensor) -> None:
    if value.device != mask.device:
        raise ValueError(f"{name}: got device {value.device}, need that of mask, {mask.device}; move it there")


def _check_endings(rollout: Rollout) -> None:
    """The mask is a prefix, and endings lie on real steps, one kind at a time."""
    mask, terminated, truncated = rollout.mask, rollout.terminated, rollout.truncated
    holes = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)
    if holes.any():
        rows = holes.nonzero().flatten().tolist()
        raise ValueError(f"mask: got a hole in rows {rows[:5]}; right-pad, so that real steps form a prefix")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if (flag & ~mask).any():
            raise ValueError(f"{name}: got True on {int((flag & ~mask).sum())} padding steps; use {name} & mask")
    if (terminated & truncated).any():
        both = int((terminated & truncated).sum())
        raise ValueError(f"truncated: got {both} steps also terminated; use truncated & ~terminated")
