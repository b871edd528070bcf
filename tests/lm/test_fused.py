"""Fused layers: the libraries' numbers and gradients, and the libraries themselves where nothing is fused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor
from torch.testing import assert_close
from transformers import Qwen3Config

from pipeline.lm.backbone import Backbone

from .builders import SIZES, noisy, other_architecture, tiny


@pytest.fixture
def layer(cache: Path) -> Any:
    """A fused layer of the tiny model with two adapters, the second active."""
    shared = noisy(noisy(tiny(cache), "sft", seed=1), "policy", seed=2)
    shared.roles.train_only("policy")
    shared.roles._activate("policy")
    return next(m for m in shared.modules() if isinstance(m, PeftLinear))


def gradients(layer: Any, forward: Any, x: Tensor) -> list[Tensor]:
    """Output of the layer, and the gradients of a weighted sum of it with respect to x, A and B."""
    x = x.clone().requires_grad_()
    down, up = layer.lora_A["policy"].weight, layer.lora_B["policy"].weight
    out = forward(x)
    weights = torch.linspace(-1, 2, out.numel()).view(out.shape)
    return [out.detach(), *torch.autograd.grad((weights * out).sum(), [x, down, up])]


@pytest.mark.parametrize("shape", [(5, 32), (2, 3, 32), (1, 1, 32)])
def test_values_and_gradients_are_pefts(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = gradients(layer, layer, x)
    theirs = gradients(layer, lambda x: PeftLinear.forward(layer, x), x)
    assert layer.forward.func.__module__ == "pipeline.lm.fused"
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert all(gradient.abs().max() > 0.01 for gradient in ours)  # nothing compared zeros


def test_the_gradient_is_right_in_double_precision(layer: Any) -> None:
    layer.double()
    x = torch.randn(3, 32, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_without_an_active_adapter_the_base_answers(layer: Any) -> None:
    layer.enable_adapters(False)
    x = torch.randn(4, 32)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_bf16_base_with_fp32_adapters_gives_fp32_gradients_within_its_precision(layer: Any) -> None:
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    exact = gradients(layer, layer, x)
    layer.base_layer.bfloat16()
    mixed = gradients(layer, layer, x.bfloat16())
    assert [t.dtype for t in mixed] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for mine, other in zip(mixed, exact, strict=True):
        assert_close(mine.float(), other, atol=0.02 * other.abs().max().item(), rtol=0)  # bf16 keeps 8 bits


def test_dropout_stays_pefts(cache: Path) -> None:
    shared = noisy(tiny(cache, lora={"dropout": 0.5}), "sft")
    ids = torch.tensor([[1, 40, 41, 42]])
    plain = shared.hidden("sft", ids)
    assert torch.equal(plain, shared.hidden("sft", ids))
    with shared.roles.dropout():
        assert not torch.equal(shared.hidden("sft", ids), shared.hidden("sft", ids))
    assert torch.equal(plain, shared.hidden("sft", ids))


def test_nothing_of_the_outputs_size_is_kept_for_the_backward_pass(layer: Any) -> None:
    """What autograd keeps: x, xAᵀ and parameters."""
    sizes: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tuple(tensor.shape))
        return tensor

    x = torch.randn(7, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out: Tensor = layer(x)
    assert sorted(shape for shape in sizes if shape[0] == 7) == [(7, 4), (7, 32)]
    assert out.shape[0] == 7


def test_new_layers_are_fused_too(cache: Path) -> None:
    shared: Backbone = tiny(cache)
    shared.roles.add("a")
    shared.roles.add("b")
    layers = [m for m in shared.modules() if isinstance(m, PeftLinear)]
    assert layers
    assert all(getattr(m.forward, "func", None) is not None for m in layers)


# ---- norms and gates ----------------------------------------------------------------------------------------


@pytest.fixture(params=["llama", "qwen3"])
def trunk(request: pytest.FixtureRequest, cache: Path, tmp_path: Path) -> Any:
    """A trunk whose norm weights are no longer all ones."""
    special = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
    config = Qwen3Config(**SIZES, **special, head_dim=16)
    name = "tiny" if request.param == "llama" else str(other_architecture(tmp_path, cache, config))
    trunk = tiny(cache, name=name).trunk
    torch.manual_seed(0)
    for module in trunk.modules():
        if type(module).__name__.endswith("RMSNorm"):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return trunk


def parts(trunk: Any) -> list[Any]:
    return [trunk.layers[0].mlp, trunk.norm]


@pytest.mark.parametrize("part", [0, 1])
def test_norms_and_gates_give_the_librarys_values_and_gradients(trunk: Any, part: int) -> None:
    module = parts(trunk)[part]
    assert module.forward.func.__module__ == "pipeline.lm.fused"
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ours, theirs = module(x), type(module).forward(module, x)
    weights = torch.linspace(-1, 2, ours.numel()).view(ours.shape)
    assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    gradient, other = (torch.autograd.grad((weights * out).sum(), x)[0] for out in (ours, theirs))
    assert_close(gradient, other, atol=1e-5, rtol=1e-5)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("part", [0, 1])
def test_norms_and_gates_in_bf16(trunk: Any, part: int) -> None:
    """Within the precision of the dtype, and of its dtype."""
    module = parts(trunk.bfloat16())[part]
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours, theirs = module(x), type(module).forward(module, x)
    assert ours.dtype == torch.bfloat16
    assert_close(ours.float(), theirs.float(), atol=0.02 * theirs.abs().max().item(), rtol=0)


def test_a_whole_trunk_with_query_norms_gives_the_librarys_gradient(trunk: Any) -> None:
    def gradient() -> Tensor:
        embedded = trunk.embed_tokens(torch.tensor([[1, 40, 41, 42], [5, 6, 7, 8]])).detach().requires_grad_()
        out = trunk(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return torch.autograd.grad(out[..., ::3].sum(), embedded)[0]  # type: ignore[no-any-return]

    ours = gradient()
    for module in trunk.modules():
        module.__dict__.pop("forward", None)
    assert_close(ours, gradient(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", ["all", "upper"])
def test_in_half_precision_a_cpu_adds_up_in_fp32(cache: Path, layers: str) -> None:
    """Weights, products and keys in bf16; the stream between the layers, its gradient and the last norm in fp32."""
    half = noisy(tiny(cache, dtype="bfloat16", lora={"layers": layers}), "policy", std=0.1)
    full = noisy(tiny(cache, lora={"layers": layers}), "policy", std=0.1)
    rounded = {name: value for name, value in half.base.state_dict().items() if value.dtype == torch.bfloat16}
    full.base.load_state_dict(rounded, strict=False)
    found = {}
    for name, shared in (("half", half), ("full", full)):
        shared.roles.train_only("policy")
        seen: list[Tensor] = []
        shared.trunk.layers[1].register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        hidden = shared.states("policy", [list(range(5, 25))]).packed
        hidden.square().mean().backward()
        found[name] = [hidden.detach(), *(p.grad for p in shared.roles.parameters_of("policy"))]
        assert {state.dtype for state in seen} == {torch.float32}
    assert {part.dtype for part in found["half"]} == {torch.float32}
    assert not torch.equal(found["half"][0], found["half"][0].bfloat16().float())
    for mine, exact in zip(found["half"], found["full"], strict=True):
        assert (mine - exact).norm() < 0.05 * exact.norm()


def test_whole_layers_of_another_kind_stay_in_half_precision(cache: Path) -> None:
    shared = tiny(cache, dtype="bfloat16", fast=False)
    shared.roles.add("policy")
    assert shared.hidden("policy", torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
