"""The supervised loop: splits change nothing, the best epoch is kept, NaN stops it."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.checkpoints import Checkpoints
from pipeline.config import DataConfig, FitConfig
from pipeline.rundir import StageDir, read_jsonl
from pipeline.stages.fit import Task, fit, grouped_batches

EXAMPLES = [(1.0, 3), (2.0, 1), (4.0, 2), (8.0, 5), (16.0, 4)]  # (target, tokens)


def config(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {"epochs": 2, "learning_rate": 0.1, "batch_size": 5, "microbatch_size": 5}
    return FitConfig(data=DataConfig(source="unused.jsonl"), **(values | changes))


def task(weight: nn.Parameter, validation: Sequence[float] = (), **changes: Any) -> Task:
    """Fit one number to ragged targets: the sum over tokens of (w − target)²."""
    losses = iter(validation)

    def loss(batch: Sequence[Any]) -> Tensor:
        return torch.stack([tokens * (weight - target) ** 2 for target, tokens in batch]).sum()

    settings: dict[str, Any] = {
        "examples": EXAMPLES,
        "length": lambda example: example[1],
        "weight": lambda example: float(example[1]),
        "loss": loss,
        "validate": lambda: {"loss": next(losses, 0.0)},
        "metric": "loss",
    }
    return Task(**(settings | changes))


def run(tmp_path: Path, cfg: FitConfig, validation: Sequence[float] = (), **changes: Any) -> tuple[float, Any, Any]:
    """Fitted weight, result and logged rows."""
    weight = nn.Parameter(torch.zeros(()))
    out = StageDir(tmp_path / "stage", "sft", "mark")
    best = fit(
        task(weight, validation, **changes),
        [weight],
        cfg,
        out,
        name="sft",
        seed=0,
        checkpoints=Checkpoints(out),
        visible=False,
    )
    return weight.item(), best, read_jsonl(out.path / "metrics.jsonl")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_microbatches_change_neither_loss_nor_gradient_nor_weights(tmp_path: Path, size: int) -> None:
    """With lengths this ragged a mean of microbatch means would be another number."""
    whole, _, rows = run(tmp_path, config())
    split, _, split_rows = run(tmp_path, config(microbatch_size=size))
    assert split == pytest.approx(whole, abs=1e-6)
    for name in ("sft/loss", "sft/grad_norm"):
        values = [[row[name] for row in found if name in row] for found in (rows, split_rows)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_the_loss_is_the_mean_over_tokens(tmp_path: Path) -> None:
    """At w = 0: (3·1 + 1·4 + 2·16 + 5·64 + 4·256) / 15."""
    _, _, rows = run(tmp_path, config(epochs=1))
    assert next(row["sft/loss"] for row in rows if "sft/loss" in row) == pytest.approx(1383 / 15)


@pytest.mark.parametrize(("higher", "best"), [(False, 2), (True, 3)])
def test_the_best_epoch_is_kept(tmp_path: Path, higher: bool, best: int) -> None:
    """Validation says 9 before training, then 5, 3, 7."""
    weights: list[float] = []
    weight = nn.Parameter(torch.zeros(()))
    losses = iter((9.0, 5.0, 3.0, 7.0))

    def validate() -> dict[str, float]:
        weights.append(weight.item())
        return {"loss": next(losses)}

    out = StageDir(tmp_path / "stage", "sft", "mark")
    plan = task(weight, validate=validate, higher_is_better=higher)
    found = fit(plan, [weight], config(epochs=3), out, name="sft", seed=0, checkpoints=Checkpoints(out), visible=False)
    assert found["epoch"] == best
    assert weight.item() == weights[best]
    assert len(set(weights)) == 4
    assert found["before"] == {"loss": 9.0}


def test_training_that_only_makes_it_worse_keeps_the_first_epoch(tmp_path: Path) -> None:
    """An untrained adapter is never the outcome: what is kept was trained."""
    _, best, _ = run(tmp_path, config(epochs=3), (1.0, 5.0, 6.0, 7.0))
    assert (best["epoch"], best["loss"]) == (1, 5.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path, bad: float) -> None:
    weight = nn.Parameter(torch.zeros(()))
    out = StageDir(tmp_path / "stage", "sft", "mark")
    plan = task(weight, loss=lambda batch: weight * bad + bad)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fit(plan, [weight], config(), out, name="sft", seed=0, checkpoints=Checkpoints(out), visible=False)
    assert weight.item() == 0.0
    assert weight.grad is None


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    """√x has a finite value and an infinite slope at 0."""
    weight = nn.Parameter(torch.zeros(()))
    out = StageDir(tmp_path / "stage", "sft", "mark")
    plan = task(weight, loss=lambda batch: weight.sqrt())
    with pytest.raises(FloatingPointError):
        fit(plan, [weight], config(), out, name="sft", seed=0, checkpoints=Checkpoints(out), visible=False)
    assert math.isfinite(weight.item())


def test_no_examples_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training examples; give more data or lower validation"):
        run(tmp_path, config(), examples=[])


def test_the_learning_rate_warms_up_and_falls_towards_0(tmp_path: Path) -> None:
    """Ten steps, two of them warm-up: ½, 1, then a line to 0 at the step after the last."""
    _, _, rows = run(tmp_path, config(epochs=10, learning_rate=1.0, warmup_fraction=0.2))
    rates = [row["sft/learning_rate"] for row in rows if "sft/learning_rate" in row]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_grouped_batches_hold_every_example_once() -> None:
    examples = list(range(1000))
    batches = grouped_batches(examples, lambda example: example % 37, 8, random.Random(0))
    assert sorted(example for batch in batches for example in batch) == examples
    assert all(len(batch) <= 8 for batch in batches)


def test_grouped_batches_pad_less_than_random_ones_and_are_still_shuffled() -> None:
    lengths = [i * 7 % 101 + 1 for i in range(512)]

    def padded(batches: Sequence[Sequence[int]]) -> int:
        return sum(len(batch) * max(batch) for batch in batches)

    grouped = grouped_batches(lengths, lambda length: length, 8, random.Random(0))
    plain = [lengths[i : i + 8] for i in range(0, 512, 8)]
    assert padded(grouped) < 1.1 * sum(lengths) < padded(plain)
    assert [max(batch) for batch in grouped] != sorted(max(batch) for batch in grouped)
    again = grouped_batches(lengths, lambda length: length, 8, random.Random(0))
    other = grouped_batches(lengths, lambda length: length, 8, random.Random(1))
    assert grouped == again
    assert grouped != other
