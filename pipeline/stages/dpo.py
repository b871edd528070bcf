"""DPO, the baseline without a reward model: the `dpo` adapter learns from the very pairs that the reward model learned
from, the `sft` adapter on the same base being its reference. The judge's pairs stay unseen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, DpoConfig
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import summed_logprobs
from pipeline.progress import bar
from pipeline.rl.losses import dpo_loss
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.fit import Task, compute_lower, fit
from pipeline.stages.inputs import EncodedPair, Source, encode_pairs, load_backbone, machine, read, reward_section
from pipeline.stages.proving import prove_fit, wanted
from pipeline.stages.reward import split_pairs

PARTS = ("reward", "reward_validation")  # of the reward stage's split


@dataclass
class Pair:
    """A pair, and log π_ref of its answers once it is known. Nats."""

    encoded: EncodedPair
    ref_chosen: float = 0.0
    ref_rejected: float = 0.0


def run(config: Config, run_dir: RunDir, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Train the `dpo` adapter, starting as a copy of `sft`; keeps the epoch with the lowest held-out loss."""
    cfg, visible = config.dpo, config.logging.progress
    assert cfg is not None  # or the chain leaves this stage out
    torch.manual_seed(config.seed)
    source = read(config, reward_section(config).data, "preferences")
    backbone = load_backbone(config)
    backbone.restore("sft", run_dir.artifact("sft", "sft"))
    parts = split_pairs(source.rows, reward_section(config), config.seed)
    train, held = (
        [Pair(one) for one in encode_pairs(backbone.chat, Source(parts[name], source.bad, {}), cfg.max_length)]
        for name in PARTS
    )
    backbone.roles.clone("sft", "dpo")
    parameters = backbone.roles.train_only("dpo")
    task = dpo_task(backbone, train, held or train, cfg, visible=visible)
    if wanted(backbone, config.gates.prove_memory):
        prove_fit("dpo", task, parameters, cfg)
    best = fit(task, parameters, cfg, out, name="dpo", seed=config.seed, checkpoints=checkpoints, visible=visible)
    backbone.save("dpo", out.path / "adapter", role={"role": "dpo", "beta": cfg.beta})
    return out.finish(
        {
            "loss_before": best["before"]["loss"],
            **{name: best[name] for name in ("loss", "accuracy", "margin")},
            "best_epoch": best["epoch"],
            "steps": best["steps"],
            "train_pairs": len(train),
            "validation_pairs": len(held),
            "trainable_parameters": sum(p.numel() for p in parameters),
        },
        artifacts={"dpo": "adapter"},
        data={"dpo": source.account(train=len(train), validation=len(held))},
        **machine(backbone),
    )


def dpo_task(backbone: Backbone, train: Sequence[Pair], held: Sequence[Pair], cfg: DpoConfig, *, visible: bool) -> Task:
    """What the supervised loop fits."""

    def loss(batch: Sequence[Pair]) -> Tensor:
        with backbone.roles.dropout():
            return pair_losses(*logprobs(backbone, "dpo", batch), batch, cfg.beta).sum()

    def prepare() -> None:
        both = [answer for pair in train for answer in (pair.encoded.chosen, pair.encoded.rejected)]
        compute_lower(backbone, both, 2 * cfg.microbatch_size, visible=visible)
        remember_reference(backbone, [*train, *held], cfg.microbatch_size, visible=visible)

    return Task(
        examples=train,
        length=lambda pair: len(pair.encoded.chosen) + len(pair.encoded.rejected),
        weight=lambda pair: 1.0,
        loss=loss,
        validate=lambda: validation(backbone, held, cfg),
        metric="loss",
        prepare=prepare,
    )


def logprobs(backbone: Backbone, adapter: str, batch: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Σ log π of the chosen and of the rejected answers [n] each, with gradient; a pair's prompt is computed once."""
    answers = [pair.encoded.chosen for pair in batch] + [pair.encoded.rejected for pair in batch]
    starts = [pair.encoded.prompt_length for pair in batch]
    chosen, rejected = summed_logprobs(backbone, adapter, answers, starts + starts).chunk(2)
    return chosen, rejected


@torch.no_grad()
def remember_reference(backbone: Backbone, pairs: Sequence[Pair], batch_size: int, *, visible: bool) -> None:
    """Write log π_ref into the pairs: the reference is frozen, so that once is enough, and always in the pairs' own
    order, so that a run that goes on finds the same bits."""
    with bar("reference", len(pairs), visible=visible) as progress:
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            chosen, rejected = (found.tolist() for found in logprobs(backbone, "sft", part))
            for index, pair in enumerate(part):
                pair.ref_chosen, pair.ref_rejected = chosen[index], rejected[index]
            progress.advance(len(part))


def pair_losses(chosen: Tensor, rejected: Tensor, batch: Sequence[Pair], beta: float) -> Tensor:
    """DPO's loss [n] of pairs whose answers have these log-probs."""
    ref_chosen, ref_rejected = references(batch, chosen)
    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)


def references(batch: Sequence[Pair], like: Tensor) -> tuple[Tensor, Tensor]:
    """log π_ref of chosen and rejected, [n] each."""
    return like.new_tensor([pair.ref_chosen for pair in batch]), like.new_tensor([pair.ref_rejected for pair in batch])


@torch.no_grad()
def validation(backbone: Backbone, pairs: Sequence[Pair], cfg: DpoConfig) -> dict[str, Any]:
    """On held-out pairs: mean loss, share in which the implied reward β log(π/π_ref) orders the answers right, and its
    mean margin. Nats."""
    losses: list[Tensor] = []
    margins: list[Tensor] = []
    for start in range(0, len(pairs), cfg.microbatch_size):
        part = pairs[start : start + cfg.microbatch_size]
        chosen, rejected = logprobs(backbone, "dpo", part)
        ref_chosen, ref_rejected = references(part, chosen)
        losses.append(dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=cfg.beta))
        margins.append(cfg.beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
    margin = torch.cat(margins)
    return {
        "loss": torch.cat(losses).mean().item(),
        "accuracy": (margin > 0).float().mean().item(),
        "margin": margin.mean().item(),
    }
