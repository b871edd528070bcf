"""Is what was exported still the model that was trained? Log-probs of its own answers, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.deploy.errors import DeployError
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import generate
from pipeline.lm.merging import plain_logprobs
from pipeline.lm.policy import rollout_logprobs, to_rollout
from pipeline.progress import bar
from pipeline.stages.inputs import encode_prompts, read

PROMPTS, TOKENS, BATCH = 32, 64, 8
# A copy may be off by a tenth of what training changed, or by this many nats where training changed next to nothing.
SHARE, ROUNDING = 0.1, 1e-4


@dataclass(frozen=True)
class Reference:
    """What the trained model says: answers to held-out prompts, and how likely adapter and bare base find them."""

    prompts: list[list[int]]
    answers: list[list[int]]
    adapter: list[Tensor]  # log π of each answer's tokens, nats
    base: list[Tensor]


@dataclass(frozen=True)
class Fidelity:
    """|Δ log π| over the answers' tokens, in nats: of a copy against adapter on base, and of the bare base against
    it."""

    mean: float
    max: float
    adapter_effect: float
    tokens: int
    prompts: int

    @property
    def holds(self) -> bool:
        return self.mean <= max(SHARE * self.adapter_effect, ROUNDING)


def reference(config: Config, backbone: Backbone, adapter: str) -> Reference:
    """Answers of `adapter` to the first prompts that the run's evaluation holds out, sampled with a fixed seed.

    Raises:
        DataError: the prompts can't be read.
    """
    asked = encode_prompts(backbone.chat, read(config, config.evaluate.data, "prompts"))[:PROMPTS]
    done = generate(
        backbone,
        adapter,
        [ids for _, ids in asked],
        temperature=config.policy.sampling.temperature,
        max_new_tokens=min(TOKENS, config.policy.sampling.max_new_tokens),
        generator=torch.Generator(backbone.device).manual_seed(0),
    )
    rollout = to_rollout(backbone, done)
    answers = [done.ids(row) for row in range(len(done.prompts))]

    def logprobs(name: str | None) -> list[Tensor]:
        table = rollout_logprobs(backbone, name, rollout, temperature=1.0, batch_size=BATCH)
        return [row[: len(ids)].float().cpu() for row, ids in zip(table, answers, strict=True)]

    return Reference(done.prompts, answers, logprobs(adapter), logprobs(None))


def compare(told: Reference, model: Any, *, visible: bool = True) -> Fidelity:
    """Hold an ordinary transformers model against what adapter and base said."""
    theirs = []
    with bar("reading it back", len(told.prompts), visible=visible) as progress:
        for prompt, answer in zip(told.prompts, told.answers, strict=True):
            theirs.append(plain_logprobs(model, prompt, answer))
            progress.advance()
    off, effect = _apart(theirs, told.adapter), _apart(told.base, told.adapter)
    return Fidelity(off.mean().item(), off.max().item(), effect.mean().item(), len(off), len(told.prompts))


def require(found: Fidelity, what: str) -> None:
    """Raises DeployError where a copy isn't the model that was trained."""
    if not found.holds:
        raise DeployError(
            f"{what} isn't the trained model: its log-probs are off by {found.mean:.2g} nats a token on average (at "
            f"most {found.max:.2g}), and the adapter itself moves them by {found.adapter_effect:.2g}; nothing was "
            "kept. A wider --dtype (float32) helps where rounding is the cause; `--to adapter` leaves the base as it is"
        )


def _apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return (torch.cat(list(one)) - torch.cat(list(other))).abs()
