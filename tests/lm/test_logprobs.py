"""Chunked log-probabilities against the plain formula, gradient by gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.lm import logprobs as module
from pipeline.lm.logprobs import token_logprobs

V, D = 11, 6


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """log π(a) and entropy with all logits at once, in fp64."""
    logits = hidden.double() @ weight.double().T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    table = torch.log_softmax(logits / temperature, -1)
    return table.gather(1, targets[:, None]).squeeze(1), -(table.exp() * table).sum(-1)


def case(n: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(n)
    return torch.randn(n, D, requires_grad=True), torch.randn(V, D), torch.randint(V, (n,))


OPTIONS: list[dict[str, Any]] = [{}, {"temperature": 0.7}, {"softcap": 1.5}, {"temperature": 0.5, "softcap": 3.0}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n", [1, 7])
def test_values_and_gradients_equal_the_plain_formula(options: dict[str, Any], n: int) -> None:
    hidden, weight, targets = case(n)
    stats = token_logprobs(hidden, weight, targets, entropy_gradient=True, **options)
    logprobs, entropy = plain(hidden, weight, targets, **options)
    assert_close(stats.logprobs.double(), logprobs, atol=1e-6, rtol=1e-5)
    assert_close(stats.entropy.double(), entropy, atol=1e-6, rtol=1e-5)
    mix = torch.linspace(-1, 2, n)  # another weight on each token, and on the two outputs
    ours = torch.autograd.grad((mix * stats.logprobs + (1 - mix) * stats.entropy).sum(), hidden)[0]
    theirs = torch.autograd.grad((mix * logprobs + (1 - mix) * entropy).sum(), hidden)[0]
    assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [3, 4, 5, 8, 9])
def test_chunk_boundaries_show_nowhere(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    hidden, weight, targets = case(n)
    stats = token_logprobs(hidden, weight, targets, entropy_gradient=True)
    logprobs, entropy = plain(hidden, weight, targets)
    assert_close(stats.logprobs.double(), logprobs, atol=1e-6, rtol=1e-5)
    ours = torch.autograd.grad(stats.logprobs.sum() + stats.entropy.sum(), hidden)[0]
    theirs = torch.autograd.grad(logprobs.sum() + entropy.sum(), hidden)[0]
    assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)


def test_more_tokens_than_one_chunk() -> None:
    hidden, weight, targets = case(2 * module.CHUNK + 3)
    stats = token_logprobs(hidden, weight, targets)
    assert_close(stats.logprobs.double(), plain(hidden, weight, targets)[0], atol=1e-6, rtol=1e-5)


def test_entropy_carries_gradient_only_when_asked() -> None:
    hidden, weight, targets = case(3)
    assert token_logprobs(hidden, weight, targets, entropy_gradient=True).entropy.requires_grad
    stats = token_logprobs(hidden, weight, targets)
    assert stats.logprobs.requires_grad
    assert not stats.entropy.requires_grad
    assert_close(stats.entropy.double(), plain(hidden, weight, targets)[1].detach(), atol=1e-6, rtol=1e-5)


def test_no_gradient_without_need() -> None:
    hidden, weight, targets = case(3)
    with torch.no_grad():
        assert not token_logprobs(hidden, weight, targets).logprobs.requires_grad
    assert not token_logprobs(hidden.detach(), weight, targets).logprobs.requires_grad


def test_probabilities_by_eye() -> None:
    """Logits (ln 2, ln 1, ln 1): π = (½, ¼, ¼), entropy 1.5 ln 2. At τ = ½ the logits double: π = (2/3, 1/6, 1/6)."""
    hidden, weight = torch.eye(1), torch.tensor([[2.0], [1.0], [1.0]]).log()
    stats = token_logprobs(hidden, weight, torch.tensor([0]))
    assert stats.logprobs.exp().item() == pytest.approx(0.5)
    assert stats.entropy.item() == pytest.approx(1.5 * 0.6931472)
    sharper = token_logprobs(hidden, weight, torch.tensor([1]), temperature=0.5)
    assert sharper.logprobs.exp().item() == pytest.approx(1 / 6)


def test_huge_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]])
    stats = token_logprobs(hidden, weight, torch.tensor([1]), entropy_gradient=True)
    assert stats.logprobs.item() == -2e4
    assert stats.entropy.item() == 0.0
    (gradient,) = torch.autograd.grad(stats.logprobs.sum() + stats.entropy.sum(), hidden)
    assert gradient.item() == -2.0  # W_a − πW = −1 − 1


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_a_bf16_head_gives_fp32_results_within_its_precision(hidden_dtype: torch.dtype) -> None:
    hidden, weight, targets = case(6)
    low = hidden.detach().to(hidden_dtype).requires_grad_()
    stats = token_logprobs(low, weight.bfloat16(), targets)
    exact, _ = plain(low, weight.bfloat16(), targets)
    assert stats.logprobs.dtype == torch.float32
    # bf16 keeps 8 bits: logits of up to about 8 are off by up to 2 · 8 / 256
    assert_close(stats.logprobs.double(), exact, atol=0.07, rtol=0)
    ours = torch.autograd.grad(stats.logprobs.sum(), low)[0]
    theirs = torch.autograd.grad(exact.sum(), low)[0]
    assert ours.dtype == hidden_dtype
    assert_close(ours.float(), theirs.float(), atol=0.07, rtol=0)
