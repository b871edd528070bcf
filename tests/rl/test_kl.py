"""KL estimators, as values and as gradients, and the controller."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from pipeline.rl.kl import AdaptiveKL, kl_k1, kl_k2, kl_k3

from .builders import FEW

ESTIMATORS = (kl_k1, kl_k2, kl_k3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_policies_have_no_kl_and_the_reference_no_gradient(estimator) -> None:  # type: ignore[no-untyped-def]
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    reference = torch.tensor([-1.0, -2.0], requires_grad=True)
    value = estimator(logprobs, reference)
    assert value.tolist() == [0.0, 0.0]
    value.sum().backward()
    assert reference.grad is None
    assert logprobs.grad is not None


def test_values_at_a_log_ratio_of_ln_2() -> None:
    logprobs, reference = torch.tensor(math.log(0.5)).double(), torch.tensor(math.log(0.25)).double()
    assert_close(float(kl_k1(logprobs, reference)), math.log(2), atol=1e-7, rtol=0)
    assert_close(float(kl_k2(logprobs, reference)), math.log(2) ** 2 / 2, atol=1e-7, rtol=0)
    assert_close(float(kl_k3(logprobs, reference)), math.log(2) - 0.5, atol=1e-7, rtol=0)


@FEW
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_k2_and_k3_are_never_negative(a: float, b: float) -> None:
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert kl_k2(x, y) >= 0
    assert kl_k3(x, y) >= -1e-15


def test_k3_keeps_its_digits_near_zero() -> None:
    """exp(x) − 1 would lose all of them in float32."""
    tiny = kl_k3(torch.tensor(-1e-3), torch.tensor(0.0))
    assert_close(float(tiny), 1e-6 / 2, rtol=2e-2, atol=0)


def expected_gradient(estimator, logits: Tensor, reference: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Σ_a π(a) ∇k(a), the samples held fixed."""
    logits = logits.clone().requires_grad_()
    logprobs = torch.log_softmax(logits, 0)
    (logprobs.detach().exp() * estimator(logprobs, reference)).sum().backward()
    assert logits.grad is not None
    return logits.grad


@FEW
@given(st.integers(0, 10_000))
def test_as_losses_k1_does_nothing_k2_is_right_and_k3_is_the_other_direction(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    reference = torch.log_softmax(other, 0)

    def true_gradient(direction: str) -> Tensor:
        x = logits.clone().requires_grad_()
        mine = torch.log_softmax(x, 0)
        forward = (mine.exp() * (mine - reference)).sum()
        reverse = (reference.exp() * (reference - mine)).sum()
        return torch.autograd.grad(forward if direction == "forward" else reverse, x)[0]

    assert expected_gradient(kl_k1, logits, reference).abs().max() < 1e-12
    assert_close(expected_gradient(kl_k2, logits, reference), true_gradient("forward"))
    assert_close(expected_gradient(kl_k3, logits, reference), true_gradient("reverse"))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="ref_logprobs: got shape"):
        kl_k1(torch.ones(2, 3), torch.ones(2))


def test_controller_stays_at_the_target_and_bounds_its_step() -> None:
    control = AdaptiveKL(0.1, 6.0, 1000)
    assert control.update(6.0, 100) == control.coef == 0.1
    assert_close(control.update(1e9, 100), 0.1 * 1.02)
    assert_close(AdaptiveKL(0.1, 6.0, 1000).update(0.0, 100), 0.1 * 0.98)
    assert_close(AdaptiveKL(0.1, 6.0, 1000).update(6.6, 100), 0.1 * 1.01)


def test_controller_resumes() -> None:
    first = AdaptiveKL(0.1, 6.0)
    first.update(12.0, 256)
    second = AdaptiveKL(1.0, 1.0, 1.0)
    second.load_state_dict(first.state_dict())
    assert second.update(3.0, 64) == first.update(3.0, 64)
    with pytest.raises(KeyError):
        second.load_state_dict({"coef": 1.0})


def test_errors_name_field_value_and_fix() -> None:
    for change in ({"coef": 0.0}, {"target": -1.0}, {"horizon": math.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(change))}: got"):
            AdaptiveKL(**({"coef": 0.1, "target": 6.0} | change))
    with pytest.raises(ValueError, match="observed_kl: got nan; stop the run"):
        AdaptiveKL(0.1, 6.0).update(math.nan, 1)
    for n in (-1, 50_000):
        with pytest.raises(ValueError, match=f"n: got {n}"):
            AdaptiveKL(0.1, 6.0).update(6.0, n)
