"""The language model as a policy: acts by sampling tokens, re-evaluates them with gradient, may carry a critic."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline import processes
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, Sampler, generate
from pipeline.lm.packing import States
from pipeline.rl.rollout import Rollout
from pipeline.rl.update import Evaluation

Critic = Literal["adapter", "shared_trunk"]


class LanguagePolicy:
    """An adapter that acts. `pipeline.rl.update.update` trains it through `evaluate`, like any other policy.

    Args:
        adapter: the adapter that acts and learns.
        critic: None; 'adapter' = its own adapter "critic" with a head; 'shared_trunk' = a head on the policy's own
            hidden states, half the cost and another algorithm: value gradients reach the policy's adapter.
        temperature: τ of every log-probability.
        entropy_gradient: let the entropy carry gradient (an entropy bonus needs it).
        batch_size: rows per pass without gradient.
        sampler: what draws the completions; None = `lm.generate.generate`.
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: str = "policy",
        *,
        critic: Critic | None = None,
        temperature: float = 1.0,
        entropy_gradient: bool = False,
        batch_size: int = 16,
        sampler: Sampler | None = None,
    ) -> None:
        self.backbone, self.adapter, self.critic = backbone, adapter, critic
        self.sampler = sampler or generate
        self.temperature, self.entropy_gradient = temperature, entropy_gradient
        self.batch_size = batch_size
        self.values_only = False  # critic warm-up: keep value gradients out of the policy's adapter
        if critic is not None and self._critic_adapter not in backbone.heads:
            backbone.roles.add_head(self._critic_adapter)

    def start_values_at_zero(self) -> None:
        """Set the critic's head to 0, the mean of a standardised score: a head that was trained to score whole
        answers guesses worse in the middle of one than this constant."""
        for parameter in self.backbone.heads[self._critic_adapter].parameters():
            nn.init.zeros_(parameter)

    @property
    def _critic_adapter(self) -> str:
        return "critic" if self.critic == "adapter" else self.adapter

    def trainable_parameters(self) -> dict[str, list[nn.Parameter]]:
        """What learns, by role: 'policy', and 'critic' when there is one. Marks exactly these as trainable."""
        names = [self.adapter] + (["critic"] if self.critic == "adapter" else [])
        self.backbone.roles.train_only(*names)
        policy = self.backbone.roles.parameters_of(self.adapter)
        if self.critic == "adapter":
            return {"policy": policy, "critic": self.backbone.roles.parameters_of("critic")}
        if self.critic == "shared_trunk":
            head = list(self.backbone.heads[self.adapter].parameters())
            return {"policy": [p for p in policy if all(p is not h for h in head)], "critic": head}
        return {"policy": policy}

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        group_size: int = 1,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Act: B = P·group_size completions as a Rollout without rewards yet."""
        completions = self.sampler(
            self.backbone,
            self.adapter,
            prompts,
            group_size=group_size,
            temperature=self.temperature,
            max_new_tokens=max_new_tokens,
            generator=generator,
        )
        return to_rollout(self.backbone, completions)

    @property
    def apart(self) -> bool:
        """Whether the critic has an adapter of its own, and so a graph of its own."""
        return self.critic == "adapter"

    def evaluate(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        """log π, entropy and (with a critic) V(s_t) of `actions` [b,t], with gradient. Padding holds zeros."""
        evaluation = self.acting(context, actions)
        return evaluation._replace(values=self.values(context, actions)) if self.apart else evaluation

    def acting(self, context: Mapping[str, Tensor], actions: Tensor) -> Evaluation:
        """`evaluate` without the values of a critic that has an adapter of its own."""
        at = Positions(context, actions)
        hidden = at.select(self.backbone.states(self.adapter, at.sequences))  # [N,D], N real tokens
        stats = self.backbone.logprobs(
            self.adapter, hidden, at.targets, temperature=self.temperature, entropy_gradient=self.entropy_gradient
        )
        values = None
        if self.critic == "shared_trunk":
            trunk = hidden.detach() if self.values_only else hidden
            values = at.scatter(self.backbone.score(self.adapter, trunk))
        return Evaluation(at.scatter(stats.logprobs), at.scatter(stats.entropy), values)

    def values(self, context: Mapping[str, Tensor], actions: Tensor) -> Tensor:
        """V(s_t) [b,t], s_t = the prompt and the actions before t. Padding holds zeros."""
        at = Positions(context, actions)
        hidden = at.select(self.backbone.states(self._critic_adapter, at.sequences))
        return at.scatter(self.backbone.score(self._critic_adapter, hidden))


class Positions:
    """Where completions stand in sequences prompt + completion: row b's token t is predicted at its position
    prompt_length_b + t − 1."""

    def __init__(self, context: Mapping[str, Tensor], actions: Tensor) -> None:
        prompt_lengths, lengths = context["prompt_lengths"], context["lengths"].clamp(max=actions.shape[1])
        steps = torch.arange(actions.shape[1], device=actions.device)
        self.mask = steps < lengths[:, None]  # [b,t]
        self.rows, step = self.mask.nonzero(as_tuple=True)  # [N] each, in the order of actions[mask]
        self.columns = prompt_lengths[self.rows] - 1 + step
        self.targets = actions[self.mask]
        self.sequences = sequences(context, actions)

    def select(self, states: States) -> Tensor:
        """[N,D], at the positions that predict real completion tokens."""
        return states.at(self.rows, self.columns)

    def scatter(self, per_token: Tensor) -> Tensor:
        """[N] → [b,t], zeros at padding."""
        return per_token.new_zeros(self.mask.shape).masked_scatter(self.mask, per_token)


def sequences(context: Mapping[str, Tensor], actions: Tensor) -> list[list[int]]:
    """Token ids of each row's prompt and completion, without padding."""
    prompts = zip(context["prompt_ids"].tolist(), context["prompt_lengths"].tolist(), strict=True)
    answers = zip(actions.tolist(), context["lengths"].tolist(), strict=True)
    return [
        prompt[:start] + answer[:length] for (prompt, start), (answer, length) in zip(prompts, answers, strict=True)
    ]


def to_rollout(backbone: Backbone, completions: Completions) -> Rollout:
    """Completions as a Rollout: the last real token is `terminated`; `context["stopped"]` tells who met the limit."""
    tokens, lengths = completions.tokens, completions.lengths
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    mask = steps < lengths[:, None]
    zeros = torch.zeros_like(completions.logprobs)
    context = {
        "prompt_ids": backbone.pad(completions.prompts),
        "prompt_lengths": torch.tensor([len(prompt) for prompt in completions.prompts], device=tokens.device),
        "lengths": lengths,
        "stopped": completions.stopped,
    }
    return Rollout(
        context=context,
        actions=tokens,
        logprobs=torch.where(mask, completions.logprobs, zeros),
        rewards=zeros,
        mask=mask,
        terminated=mask & (steps == lengths[:, None] - 1),
        truncated=torch.zeros_like(mask),
    )


def completion_texts(backbone: Backbone, rollout: Rollout) -> list[str]:
    """The completions [B] as text, without special tokens."""
    rows = zip(rollout.actions.tolist(), rollout.lengths.tolist(), strict=True)
    return [backbone.chat.decode(ids[:length]) for ids, length in rows]


@torch.no_grad()
def rollout_logprobs(
    backbone: Backbone, adapter: str | None, rollout: Rollout, *, temperature: float, batch_size: int
) -> Tensor:
    """log π of a rollout's actions [B,T] under any adapter (None = the base), without gradient."""
    logprobs = torch.zeros_like(rollout.logprobs)
    for rows, counts in processes.batches(order(backbone, rollout), batch_size):
        part = rollout.select(rows)
        at = Positions(part.context, part.actions[:, : int(part.lengths.max())])
        hidden = at.select(backbone.states(adapter, at.sequences))
        stats = backbone.logprobs(adapter, hidden, at.targets, temperature=temperature)
        if counts:
            logprobs[rows, : at.mask.shape[1]] = at.scatter(stats.logprobs)
    processes.add(logprobs)
    return logprobs


def summed_logprobs(
    backbone: Backbone, adapter: str | None, texts: Sequence[Sequence[int]], starts: Sequence[int]
) -> Tensor:
    """Σ log π [B] of each text behind its first `starts[b]` ≥ 1 tokens, at temperature 1, with gradient. Nats."""
    places = [(row, at) for row, text in enumerate(texts) for at in range(starts[row], len(text))]
    row, column = torch.tensor(places, device=backbone.device).T
    targets = torch.tensor([texts[r][at] for r, at in places], device=backbone.device)
    hidden = backbone.states(adapter, texts).at(row, column - 1)
    logprobs = backbone.logprobs(adapter, hidden, targets).logprobs
    return logprobs.new_zeros(len(texts)).index_add(0, row, logprobs)


@torch.no_grad()
def mean_logprobs(
    backbone: Backbone, adapter: str | None, texts: Sequence[Sequence[int]], starts: Sequence[int], *, batch_size: int
) -> Tensor:
    """Mean log π a token [B] of each text behind its first `starts[b]` ≥ 1 tokens, at temperature 1. Nats."""
    means = torch.zeros(len(texts), device=backbone.device)
    alike = sorted(range(len(texts)), key=lambda i: list(texts[i]) if backbone.packs else [-len(texts[i])])
    for rows, counted in processes.batches(alike, batch_size):
        sums = summed_logprobs(backbone, adapter, [texts[i] for i in rows], [starts[i] for i in rows])
        if counted:
            means[rows] = sums / sums.new_tensor([len(texts[i]) - starts[i] for i in rows])
    processes.add(means)
    return means


@torch.no_grad()
def rollout_values(policy: LanguagePolicy, rollout: Rollout) -> Tensor:
    """V(s_t) of a rollout's states [B,T], without gradient."""
    values = torch.zeros_like(rollout.logprobs)
    for rows, counts in processes.batches(order(policy.backbone, rollout), policy.batch_size):
        part = rollout.select(rows)
        longest = int(part.lengths.max())
        found = policy.values(part.context, part.actions[:, :longest])
        if counts:
            values[rows, :longest] = found
    processes.add(values)
    return values


def order(backbone: Backbone, rollout: Rollout) -> Tensor:
    """Rows [B] as batches take them: neighbours, which share their prompt, or where nothing is shared, by length."""
    total = rollout.context["prompt_lengths"] + rollout.lengths
    return torch.arange(len(total)) if backbone.packs else total.argsort(descending=True, stable=True)
