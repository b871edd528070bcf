"""oneDNN's products are torch's, wherever they are asked for; and they are asked for where MKL would be slow alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.lm import products
from pipeline.lm.backbone import Backbone
from pipeline.lm.logprobs import token_logprobs
from pipeline.lm.packing import Packing, pack
from pipeline.lm.products import ROWS, product_for, whole_rows

from .builders import in_turn, noisy, tiny

SEQUENCES = [[5, 6, 7, 8, 9], [40], [5, 6, 7, 90, 9, 10, 11], [1, 2], [1, 2], [1, 2, 3]]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which oneDNN is the faster one, whatever this one is."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(products, "idle_avx512", lambda: True)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("part", [slice(None), slice(8, 40)], ids=["whole", "some columns"])
def test_both_libraries_multiply_alike(part: slice) -> None:
    x, weight, bias, plus = random(64, 48)[:, part], random(24, 48)[:, part], random(24), random(64, 24, seed=1)
    exact = (x.double() @ weight.double().T).float()
    for times in (products._torch, products._onednn):
        assert_close(times(x, weight), exact, atol=1e-5, rtol=1e-5)
        assert_close(times(x, weight, bias), exact + bias, atol=1e-5, rtol=1e-5)
        assert_close(times(x, weight, plus=plus.clone(), scale=0.5), plus + exact / 2, atol=1e-5, rtol=1e-5)
        assert_close(times(x.T, plus.T), x.T @ plus, atol=1e-5, rtol=1e-5)  # both transposed: 64 is what is summed over
        assert_close(times(plus, weight.T), plus @ weight, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("idle")
def test_onednn_is_asked_for_whole_numbers_of_rows_in_fp32_alone() -> None:
    rows = random(2 * ROWS, 8)
    assert product_for(rows) is product_for(rows[1:]) is products._onednn  # few
    assert product_for(torch.cat([rows, rows])) is products._onednn
    assert product_for(torch.cat([rows, rows[1:]])) is products._torch
    assert product_for(rows.bfloat16()) is products._torch  # torch asks oneDNN by itself
    assert product_for(rows.double()) is products._torch
    assert [whole_rows(rows), whole_rows(rows.bfloat16()), whole_rows(rows.to("meta"))] == [ROWS, ROWS, 1]
    torch.set_float32_matmul_precision("medium")
    try:
        assert (product_for(rows), whole_rows(rows)) == (products._torch, 1)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_where_mkl_uses_the_whole_processor_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_intel", lambda: True)
    assert not products.idle_avx512.__wrapped__()
    monkeypatch.setattr(products, "idle_avx512", lambda: False)
    assert (product_for(random(ROWS, 8)), whole_rows(random(1, 8))) == (products._torch, 1)


@pytest.mark.usefixtures("idle")
def test_rows_that_fill_up_a_pack_are_read_by_nobody() -> None:
    full, plain = pack(SEQUENCES, random(1, 1)), Packing(SEQUENCES, torch.device("cpu"))
    assert len(full.ids) == ROWS > len(plain.ids)
    assert full.ids[: len(plain.ids)].tolist() == plain.ids.tolist()
    assert torch.equal(full.places, plain.places)
    states = random(1, 1, ROWS, 3)
    real = states[:, :, : len(plain.ids)]
    assert torch.equal(full.spread(states), plain.spread(real))
    assert torch.equal(full.gather(full.spread(states))[:, : len(plain.ids)], real.transpose(1, 2))


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("layers", ["all", "upper"])
def test_states_logprobs_and_gradients_are_the_plain_ones(layers: str, cache: Path) -> None:
    shared = noisy(tiny(cache, lora={"layers": layers}), "policy", std=0.1)
    parameters = shared.roles.train_only("policy")
    assert (shared.lower is None) == (layers == "all")
    targets = torch.arange(1, 21)

    def of(hidden: Tensor) -> tuple[Tensor, ...]:
        stats = shared.logprobs("policy", hidden, targets, entropy_gradient=True)
        return stats.logprobs, stats.entropy, *torch.autograd.grad((stats.logprobs + stats.entropy).sum(), parameters)

    found = of(in_turn(shared.states("policy", SEQUENCES), SEQUENCES))
    padded = shared.hidden("policy", shared.pad(SEQUENCES))
    expected = of(torch.cat([padded[row, : len(sequence)] for row, sequence in enumerate(SEQUENCES)]))
    assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    assert any(gradient.abs().max() > 1e-2 for gradient in found[2:])
    assert_close(found, expected, atol=1e-4, rtol=1e-4)  # sums over 20 positions


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("count", [1, ROWS, ROWS + 5])
def test_a_head_that_learns_gets_no_gradient_from_what_fills_up(count: int) -> None:
    hidden, weight = random(count, 16).requires_grad_(), random(50, 16, seed=1).requires_grad_()
    targets = torch.arange(count) % 50
    found = token_logprobs(hidden, weight, targets).logprobs
    expected = torch.log_softmax(hidden @ weight.T, -1).gather(1, targets[:, None]).squeeze(1)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    slope = random(count, seed=2)
    gradients = [torch.autograd.grad((slope * logprobs).sum(), [hidden, weight]) for logprobs in (found, expected)]
    assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("rows", [2 * ROWS, 5])
def test_a_hastened_layer_has_every_gradient(rows: int) -> None:
    layer, x = torch.nn.Linear(24, 16), random(1, rows, 24).requires_grad_()
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    products.hasten(layer)
    found, slope = layer(x), random(1, rows, 16, seed=1)
    assert_close(found, plain, atol=1e-5, rtol=1e-5)
    learned = [x, layer.weight, layer.bias]
    gradients = [torch.autograd.grad((slope * out).sum(), learned) for out in (found, plain)]
    assert_close(*gradients, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert_close(layer(x.double().float()), plain)


@pytest.mark.usefixtures("idle")
def test_whole_roles_multiply_fast_and_learn_the_same(cache: Path) -> None:
    gradients = []
    for fast in (True, False):
        shared = Backbone.load("tiny", lora=None, cache_dir=cache, device="cpu", fast=fast)
        shared.roles.add("sft")
        parameters = shared.roles.train_only("sft")
        hidden = in_turn(shared.states("sft", SEQUENCES), SEQUENCES)
        logprobs = shared.logprobs("sft", hidden, torch.arange(1, 21)).logprobs
        gradients.append(torch.autograd.grad(logprobs.sum(), parameters))
    assert sum(bool(gradient.abs().max() > 1e-2) for gradient in gradients[0]) > 10
    assert_close(*gradients, atol=1e-4, rtol=1e-4)
