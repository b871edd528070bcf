"""Clipping is torch's, except that short gradients aren't touched."""

import math

import pytest
import torch

from pipeline.rl.gradients import clip_gradients


def parameters(scale: float) -> list[torch.Tensor]:
    made = [torch.zeros(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True), torch.zeros(1)]
    for number, parameter in enumerate(made[:2]):
        parameter.grad = scale * torch.arange(1.0, parameter.numel() + 1).view(parameter.shape) * (number + 1)
    return made


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_it_does_what_torch_does(scale: float, count: int) -> None:
    ours, theirs = parameters(scale)[:count], parameters(scale)[:count]
    norm = clip_gradients(ours, 1.0)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 1.0)))
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)


def test_no_limit_and_no_number() -> None:
    free, broken = parameters(5.0), parameters(1.0)
    clip_gradients(free, math.inf)
    torch.testing.assert_close(free[0].grad, parameters(5.0)[0].grad)
    broken[0].grad = torch.full((3,), float("nan"))
    assert math.isnan(clip_gradients(broken, 1.0))
