"""The supervised loop that SFT, the reward model and DPO share: epochs, length-grouped batches, best epoch kept."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import processes
from pipeline.checkpoints import Checkpoints, overwrite
from pipeline.config import ConfigError, LoopConfig
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import give_back
from pipeline.progress import bar
from pipeline.rl.gradients import clip_gradients
from pipeline.rundir import StageDir
from pipeline.stages.optimisers import make_optimizer

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
        prepare: done before anything else, also by a run that goes on.
    """

    examples: Sequence[Any]
    length: Callable[[Any], int]
    weight: Callable[[Any], float]
    loss: Callable[[Sequence[Any]], Tensor]
    validate: Callable[[], dict[str, float]]
    metric: str
    higher_is_better: bool = False
    prepare: Callable[[], None] = lambda: None


class Fitting:
    """A task under way: optimiser, schedule, order and best epoch, all that must be kept to go on exactly."""

    def __init__(self, task: Task, parameters: list[nn.Parameter], cfg: LoopConfig, seed: int) -> None:
        self.task, self.parameters, self.cfg = task, parameters, cfg
        self.per_epoch = -(-len(task.examples) // cfg.batch_size)
        self.total = self.per_epoch * cfg.epochs
        self.optimizer = make_optimizer(cfg.optimizer, parameters, lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
        factor = _warm_then_linear(self.total, cfg.warmup_fraction)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.epoch, self.step = 1, 0
        self._order = random.Random(seed)
        self._order_then = self._order.getstate()  # at the beginning of the epoch
        self.before: dict[str, float] = {}
        self.best: dict[str, Any] = {"epoch": 0}
        self._kept: list[Tensor] = []

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "parameters": list(self.parameters),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "order": self._order_then,
            "before": self.before,
            "best": self.best,
            "kept": self._kept,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another process left."""
        overwrite(self.parameters, state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._order.setstate(state["order"])
        self._order_then = state["order"]
        self.before, self.best = state["before"], state["best"]
        self._kept = [value.to(p.device) for p, value in zip(self.parameters, state["kept"], strict=True)]

    def batches(self) -> list[list[Any]]:
        """What is left of this epoch."""
        self._order_then = self._order.getstate()
        all_of_it = grouped_batches(self.task.examples, self.task.length, self.cfg.batch_size, self._order)
        return all_of_it[self.step - (self.epoch - 1) * self.per_epoch :]

    def validate(self) -> dict[str, float]:
        """Figures on held-out examples; the weights are kept if they are the best of a whole epoch so far."""
        figures = self.task.validate()
        give_back()  # its batches had other shapes than those to come
        sign = 1 if self.task.higher_is_better else -1
        trained = self.epoch if self.step else 0
        if self.best["epoch"] == 0 or sign * figures[self.task.metric] > sign * self.best[self.task.metric]:
            self.best = {"epoch": trained, **figures}
            self._kept = [p.detach().clone() for p in self.parameters]
        return figures

    def keep_best(self) -> None:
        """Put the best epoch's weights back."""
        overwrite(self.parameters, self._kept)


def fit(
    task: Task,
    parameters: list[nn.Parameter],
    cfg: LoopConfig,
    out: StageDir,
    *,
    name: str,
    seed: int,
    checkpoints: Checkpoints,
    visible: bool,
) -> dict[str, Any]:
    """Train `parameters` on `task` and leave them at their best epoch.

    The mean is over the whole batch (all its tokens, or all its pairs), whatever the microbatches, and however many
    processes share them.

    Returns:
        Figures of the best epoch, those before training under `before`, and `epoch`.

    Raises:
        FloatingPointError: a loss that is NaN or infinite; nothing is stepped.
    """
    if not task.examples:
        raise ConfigError(f"{name}: no training examples; give more data or lower validation")
    task.prepare()
    processes.alike(parameters)
    if processes.rank():  # dropout: no two processes leave out the same
        torch.manual_seed(seed + processes.rank())
    fitting = Fitting(task, parameters, cfg, seed)
    state = checkpoints.latest(name)
    if state is not None:
        fitting.restore(state)
    else:
        fitting.before = fitting.validate()
        out.log(0, {f"{name}/validation_{key}": value for key, value in fitting.before.items()})
    finished = fitting.epoch > cfg.epochs  # and kept already: what the process before was killed in came later
    with bar(name, fitting.total, visible=visible, done=fitting.step) as progress:
        while fitting.epoch <= cfg.epochs:
            for batch in fitting.batches():
                loss, norm = _step(task, batch, parameters, fitting.optimizer, cfg)
                rate = fitting.schedule.get_last_lr()[0]
                fitting.schedule.step()
                fitting.step += 1
                out.log(fitting.step, {f"{name}/loss": loss, f"{name}/grad_norm": norm, f"{name}/learning_rate": rate})
                progress.advance(figures={"epoch": fitting.epoch, "loss": loss})
                checkpoints.step(name, fitting.state)
            figures = fitting.validate()
            validation = {f"{name}/validation_{key}": value for key, value in figures.items()}
            out.log(fitting.step, {f"{name}/epoch": fitting.epoch, **validation})
            fitting.epoch += 1
    if not finished:
        checkpoints.save(name, fitting.state())
    fitting.keep_best()
    return {**fitting.best, "steps": fitting.step, "before": fitting.before}


def compute_lower(backbone: Backbone, sequences: Sequence[Sequence[int]], batch_size: int, *, visible: bool) -> None:
    """Run the layers below the adapters once over what every epoch will come back to, as far as it can be kept.

    The order is the sequences' own, so that a run that goes on after a crash finds the same states, bit by bit: what a
    sequence is computed together with shows in its last digits. Every process keeps them all, for any may come to it.
    """
    lower = backbone.lower
    if lower is None:
        return
    lower.forget()
    ordered = sorted({tuple(sequence) for sequence in sequences})
    with bar("layers below the adapters", len(ordered), visible=visible) as progress:
        for start in range(0, len(ordered), batch_size):
            if lower.full:
                break
            part = ordered[start : start + batch_size]
            lower.states(part)
            progress.advance(len(part))


def _step(
    task: Task,
    batch: Sequence[Any],
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    cfg: LoopConfig,
) -> tuple[float, float]:
    """One optimiser step; returns the batch's mean loss and the gradient norm before clipping."""
    total_weight = sum(task.weight(example) for example in batch)
    ordered = sorted(batch, key=task.length, reverse=True)
    total = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    for part, counts in processes.batches(ordered, cfg.microbatch_size):
        loss = task.loss(part) * (counts / total_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    processes.add(total, *(p.grad for p in parameters if p.grad is not None))
    mean = total.item()
    if not math.isfinite(mean):
        optimizer.zero_grad(set_to_none=True)
        raise FloatingPointError(f"the loss is {mean}; lower learning_rate or look at the data")
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
