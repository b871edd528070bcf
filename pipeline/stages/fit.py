"""The supervised loop that SFT and the reward model share: epochs, length-grouped batches, best epoch kept."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import ConfigError, FitConfig
from pipeline.progress import bar
from pipeline.rl.gradients import clip_gradients
from pipeline.rundir import StageDir

POOL = 16  # batches among which lengths are grouped; enough to pad little, few enough to stay random


@dataclass(frozen=True)
class Task:
    """What is fitted.

    Attributes:
        examples: training examples.
        length: tokens of one example, for grouping and microbatching.
        weight: what one example contributes to the denominator of the mean loss.
        loss: SUM of the loss over a microbatch, with gradient.
        validate: figures on held-out examples, without gradient; must contain `metric`.
        metric: the figure that chooses the best epoch.
        higher_is_better: its direction.
    """

    examples: Sequence[Any]
    length: Callable[[Any], int]
    weight: Callable[[Any], float]
    loss: Callable[[Sequence[Any]], Tensor]
    validate: Callable[[], dict[str, float]]
    metric: str
    higher_is_better: bool = False


def fit(
    task: Task,
    parameters: list[nn.Parameter],
    cfg: FitConfig,
    out: StageDir,
    *,
    name: str,
    seed: int,
    visible: bool,
) -> dict[str, Any]:
    """Train `parameters` on `task` and leave them at their best epoch.

    The mean is over the whole batch (all its tokens, or all its pairs), whatever the microbatches.

    Returns:
        Figures of the best epoch, those before training under `before`, and `epoch`.

    Raises:
        FloatingPointError: a loss that is NaN or infinite; nothing is stepped.
    """
    if not task.examples:
        raise ConfigError(f"{name}: no training examples; give more data or lower validation")
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(parameters, lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    per_epoch = -(-len(task.examples) // cfg.batch_size)
    total = per_epoch * cfg.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_linear(total, cfg.warmup_fraction))
    before = task.validate()
    out.log(0, {f"{name}/validation_{key}": value for key, value in before.items()})
    sign = 1 if task.higher_is_better else -1
    best: dict[str, Any] = {"epoch": 0, **before}
    kept = [p.detach().clone() for p in parameters]
    step = 0
    with bar(name, total, visible=visible) as progress:
        for epoch in range(1, cfg.epochs + 1):
            for batch in grouped_batches(task.examples, task.length, cfg.batch_size, rng):
                loss, norm = _step(task, batch, parameters, optimizer, cfg)
                rate = schedule.get_last_lr()[0]
                schedule.step()
                step += 1
                out.log(step, {f"{name}/loss": loss, f"{name}/grad_norm": norm, f"{name}/learning_rate": rate})
                progress.advance(figures={"epoch": epoch, "loss": loss})
            figures = task.validate()
            out.log(step, {f"{name}/epoch": epoch, **{f"{name}/validation_{k}": v for k, v in figures.items()}})
            if best["epoch"] == 0 or sign * figures[task.metric] > sign * best[task.metric]:
                best = {"epoch": epoch, **figures}
                kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return {**best, "steps": step, "before": before}


def _step(
    task: Task,
    batch: Sequence[Any],
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    cfg: FitConfig,
) -> tuple[float, float]:
    """One optimiser step; returns the batch's mean loss and the gradient norm before clipping."""
    total_weight = sum(task.weight(example) for example in batch)
    ordered = sorted(batch, key=task.length, reverse=True)
    mean = 0.0
    for start in range(0, len(ordered), cfg.microbatch_size):
        loss = task.loss(ordered[start : start + cfg.microbatch_size]) / total_weight
        if not torch.isfinite(loss):
            optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the loss is {loss.item()}; lower learning_rate or look at the data")
        loss.backward()  # type: ignore[no-untyped-call]
        mean += loss.item()
    norm = clip_gradients(parameters, cfg.max_grad_norm)
    if not math.isfinite(norm):
        optimizer.zero_grad(set_to_none=True)
        raise FloatingPointError(f"the gradient's norm is {norm}; lower learning_rate or look at the data")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return mean, norm


def grouped_batches(
    examples: Sequence[Any], length: Callable[[Any], int], batch_size: int, rng: random.Random
) -> list[list[Any]]:
    """A fresh random order, sorted by length within pools of batches, batches shuffled again."""
    order = list(examples)
    rng.shuffle(order)
    pool = batch_size * POOL
    batches: list[list[Any]] = []
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=length)
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


def _warm_then_linear(total: int, warmup_fraction: float) -> Callable[[int], float]:
    """Learning-rate factor: linear warm-up, then linear decay to 0 at `total` steps."""
    warmup = max(1, round(total * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total - step) / max(1, total - warmup))

    return factor
