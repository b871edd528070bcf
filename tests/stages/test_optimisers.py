"""AdamW in its kinds: what is kept, and that a checkpoint holds all of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.checkpoints import Checkpoints
from pipeline.config import OptimizerName
from pipeline.rundir import RunDir
from pipeline.stages.optimisers import make_optimizer

KINDS: tuple[OptimizerName, ...] = ("adamw", "adamw_8bit", "paged_adamw_8bit")


def problem(kind: OptimizerName) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """8,192 weights, all to become 1."""
    weights = nn.Parameter(torch.linspace(-1, 1, 8192).view(64, 128))
    return weights, make_optimizer(kind, [{"params": [weights], "lr": 0.05}], weight_decay=0.0)


def descend(weights: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (weights - 1).square()).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_descends_as_the_plain_one_does(kind: OptimizerName) -> None:
    weights, optimizer = problem(kind)
    plain, plain_optimizer = problem("adamw")
    descend(weights, optimizer, 20)
    descend(plain, plain_optimizer, 20)
    assert (weights - plain).abs().max() < 0.05  # an eight-bit moment is off by a step at most
    assert (weights - 1).abs().mean() < 0.6 * (torch.linspace(-1, 1, 8192) - 1).abs().mean()


def test_eight_bit_moments_take_a_quarter() -> None:
    def size(kind: OptimizerName) -> int:
        weights, optimizer = problem(kind)
        descend(weights, optimizer, 1)
        state: dict[str, Any] = optimizer.state[weights]
        moments = [value for key, value in state.items() if key in ("exp_avg", "exp_avg_sq", "state1", "state2")]
        return sum(moment.numel() * moment.element_size() for moment in moments)

    assert size("adamw") == 8 * 8192 == 4 * size("adamw_8bit")


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_to_the_same_bits(kind: OptimizerName, tmp_path: Path) -> None:
    weights, optimizer = problem(kind)
    descend(weights, optimizer, 3)
    out = RunDir(tmp_path).open_stage("sft", "mark")
    Checkpoints(out).save("sft", {"weights": weights.detach().clone(), "optimizer": optimizer.state_dict()})
    descend(weights, optimizer, 3)
    again, other = problem(kind)
    state = Checkpoints(RunDir(tmp_path).open_stage("sft", "mark", resume=True)).latest("sft")
    assert state is not None
    with torch.no_grad():
        again.copy_(state["weights"])
    other.load_state_dict(state["optimizer"])
    descend(again, other, 3)
    assert torch.equal(again, weights)
