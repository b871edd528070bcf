"""Supervised fine-tuning: the `sft` adapter learns the assistant's tokens, the end of turn included."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline import processes
from pipeline.checkpoints import Checkpoints
from pipeline.config import Config
from pipeline.data.splits import split_by_prompt
from pipeline.lm.backbone import Backbone
from pipeline.lm.chat import Encoded
from pipeline.rundir import StageDir, StageResult
from pipeline.stages.fit import Task, compute_lower, fit
from pipeline.stages.inputs import TRUNCATED_AWAY, Source, encode_demonstrations, load_backbone, machine, read
from pipeline.stages.proving import prove_fit, wanted


def run(config: Config, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Fine-tune on demonstrations; keeps the epoch with the lowest held-out loss."""
    cfg, visible = config.sft, config.logging.progress
    torch.manual_seed(config.seed)
    source = read(config, cfg.data, "demonstrations")
    backbone = load_backbone(config)
    parts = split_by_prompt(source.rows, {"train": 1 - cfg.validation, "validation": cfg.validation}, seed=config.seed)
    train, held = (
        encode_demonstrations(backbone.chat, Source(parts[name], source.bad, {}), cfg.max_length)
        for name in ("train", "validation")
    )
    backbone.roles.add("sft")
    parameters = backbone.roles.train_only("sft")

    def loss(batch: Sequence[Encoded]) -> Tensor:
        with backbone.roles.dropout():
            return nll(backbone, "sft", batch)

    task = Task(
        examples=train,
        length=lambda example: len(example.ids),
        weight=lambda example: sum(example.supervised),
        loss=loss,
        validate=lambda: {"loss": mean_nll(backbone, "sft", held or train, cfg.microbatch_size)},
        metric="loss",
        prepare=lambda: compute_lower(
            backbone, [example.ids for example in train], cfg.microbatch_size, visible=visible
        ),
    )
    if wanted(backbone, config.gates.prove_memory):
        prove_fit("sft", task, parameters, cfg)
    best = fit(task, parameters, cfg, out, name="sft", seed=config.seed, checkpoints=checkpoints, visible=visible)
    backbone.save("sft", out.path / "adapter", role={"role": "sft"})
    metrics = {
        "loss_before": best["before"]["loss"],
        "loss": best["loss"],
        "best_epoch": best["epoch"],
        "steps": best["steps"],
        "train_rows": len(train),
        "validation_rows": len(held),
        "truncated_away": source.bad.counts[TRUNCATED_AWAY] / len(source.rows),
        "supervised_tokens": sum(sum(example.supervised) for example in train),
        "trainable_parameters": sum(p.numel() for p in parameters),
    }
    return out.finish(
        metrics,
        artifacts={"sft": "adapter"},
        data={"sft": source.account(train=len(train), validation=len(held))},
        **machine(backbone),
    )


def nll(backbone: Backbone, adapter: str | None, batch: Sequence[Encoded]) -> Tensor:
    """Sum of −log π over the supervised tokens of a batch, with gradient. Nats."""
    states = backbone.states(adapter, [example.ids for example in batch])
    taught = [(b, i) for b, example in enumerate(batch) for i, flag in enumerate(example.supervised) if flag and i > 0]
    rows, columns = torch.tensor(taught, device=backbone.device).T
    targets = torch.tensor([batch[b].ids[i] for b, i in taught], device=backbone.device)
    taught_by = states.at(rows, columns - 1)  # position i − 1 predicts token i
    return -backbone.logprobs(adapter, taught_by, targets).logprobs.sum()


@torch.no_grad()
def mean_nll(backbone: Backbone, adapter: str | None, examples: Sequence[Encoded], batch_size: int) -> float:
    """Mean −log π per supervised token. Nats."""
    ordered: list[Any] = sorted(examples, key=lambda example: -len(example.ids))
    total = torch.zeros((), dtype=torch.float64, device=backbone.device)
    for part, counts in processes.batches(ordered, batch_size):
        total += nll(backbone, adapter, part) * counts
    processes.add(total)
    return total.item() / sum(sum(example.supervised) for example in examples)
