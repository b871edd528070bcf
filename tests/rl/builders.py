"""Small rollouts and policies that the tests share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.losses import categorical_entropy
from pipeline.rl.rollout import Rollout
from pipeline.rl.update import Evaluation, Objective, update

FEW = settings(max_examples=25, deadline=None)  # above @given: shared machines miss deadlines
LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=6)
SEEDS = st.integers(0, 10_000)


def mask_of(lengths: Sequence[int], columns: int | None = None) -> Tensor:
    """[B,T] prefix mask."""
    columns = max(1, *lengths) if columns is None else columns
    return torch.arange(columns)[None] < torch.tensor(lengths)[:, None]


def last_of(mask: Tensor) -> Tensor:
    """True at each row's last real step."""
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)


def rollout_of(lengths: Sequence[int], seed: int = 0, columns: int | None = None, **changes: Any) -> Rollout:
    """Random float64 rollout; the same seed gives the same real steps at any number of columns."""
    mask = mask_of(lengths, columns)
    generator = torch.Generator().manual_seed(seed)
    width = max(8, mask.shape[1])  # drawn wide, then cut, so that columns do not change the numbers
    drawn = torch.randn(7, len(lengths), width, dtype=torch.float64, generator=generator)[:, :, : mask.shape[1]]
    actions = torch.randint(0, 3, (len(lengths), width), generator=generator)[:, : mask.shape[1]]
    states = torch.randint(0, 4, (len(lengths), width), generator=generator)
    fields: dict[str, Any] = {
        "context": {"states": states},
        "actions": actions,
        "logprobs": -drawn[0].abs(),
        "rewards": drawn[1],
        "mask": mask,
        "terminated": last_of(mask),
        "truncated": torch.zeros_like(mask),
        "values": drawn[2],
        "next_values": drawn[3],
        "ref_logprobs": -drawn[4].abs(),
    }
    return Rollout(**(fields | changes))


@dataclass
class TabularPolicy:
    """A softmax and a value for every state; context["states"] is [B,T_max] int64. Junk at padding."""

    logits: nn.Parameter
    values: nn.Parameter | None = None
    seen: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def random(cls, seed: int = 0, states: int = 4, actions: int = 3, critic: bool = True) -> "TabularPolicy":
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(states, actions, dtype=torch.float64, generator=generator)
        values = torch.randn(states, dtype=torch.float64, generator=generator)
        return cls(nn.Parameter(logits), nn.Parameter(values) if critic else None)

    def parameters(self) -> list[nn.Parameter]:
        return [self.logits] if self.values is None else [self.logits, self.values]

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        self.seen.append(tuple(actions.shape))
        states = context["states"][:, : actions.shape[1]]
        logits = self.logits[states]
        logprobs = torch.log_softmax(logits, -1).gather(-1, actions[..., None]).squeeze(-1)
        values = None if self.values is None else self.values[states]
        return Evaluation(logprobs, categorical_entropy(logits), values)

    def acted(self, rollout: Rollout) -> Rollout:
        """The rollout as if this policy had acted."""
        with torch.no_grad():
            now = self.evaluate(rollout.context, rollout.actions)
        self.seen.clear()
        return replace(rollout, logprobs=now.logprobs, values=rollout.values if now.values is None else now.values)


EVERYTHING = Objective(max_length=5, entropy_coef=0.1, kl_coef=0.2, kl_estimator="k2", value_coef=0.5)


def train(
    policy: Any, rollout: Rollout, objective: Objective = EVERYTHING, lr: float = 1.0, **options: Any
) -> dict[str, float]:
    """One call of `update` by plain gradient descent, with everything on."""
    advantages, returns = estimate_advantages("ppo", rollout)
    options = {"minibatch_size": len(rollout), "max_grad_norm": 1e9} | options
    optimizer = torch.optim.SGD(policy.parameters(), lr=lr)
    options.setdefault("generator", torch.Generator().manual_seed(1))
    return update(policy, optimizer, rollout, advantages, returns, objective, **options)


def step_of(
    rollout: Rollout, objective: Objective = EVERYTHING, **options: Any
) -> tuple[list[Tensor], dict[str, float]]:
    """(minus the gradient of the only minibatch, statistics)."""
    policy = TabularPolicy.random()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    stats = train(policy, rollout, objective, **options)
    return [(p.detach() - b) for p, b in zip(policy.parameters(), before, strict=True)], stats
