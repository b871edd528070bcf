"""The fast networks against plain layers: values, gradients, training."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pipeline.agents.mlp import MLPs

SIZES = (3, 8, 6, 2)


def fresh(*sizes: tuple[int, ...], activation: str = "tanh") -> MLPs:
    torch.manual_seed(0)
    return MLPs(sizes, activation, last_gains=[1.0] * len(sizes))


def plain(networks: MLPs, number: int = 0) -> nn.Sequential:
    """The same perceptron of torch's own layers."""
    act = {"tanh": nn.Tanh, "relu": nn.ReLU}[networks.activation]
    parts: list[nn.Module] = []
    for weight, bias in networks.layers[number]:
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
        parts += [linear, act()]
    return nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [(SIZES,), ((3, 2),), (SIZES, (3, 4, 1)), ((3, 1), SIZES)])
def test_values_and_gradients_are_those_of_plain_layers(activation: str, sizes: tuple[tuple[int, ...], ...]) -> None:
    networks = fresh(*sizes, activation=activation)
    networks.vector.data += 0.1 * torch.randn_like(networks.vector)  # biases, too
    twins = [plain(networks, number) for number in range(len(sizes))]
    x = torch.randn(4, 5, 3, requires_grad=True)
    twin_x = x.detach().clone().requires_grad_()
    ys, twin_ys = networks(x), [twin(twin_x) for twin in twins]
    assert [y.shape for y in ys] == [(4, 5, one[-1]) for one in sizes]
    weights = [torch.randn_like(y) for y in ys]
    for number, (y, twin_y) in enumerate(zip(ys, twin_ys, strict=True)):
        assert_close(y, twin_y)
        assert_close(networks.only(number, x), y.detach())
        with torch.no_grad():
            assert_close(networks(x)[number], y)
    sum((y * w).sum() for y, w in zip(ys, weights, strict=True)).backward()
    sum((y * w).sum() for y, w in zip(twin_ys, weights, strict=True)).backward()
    assert_close(x.grad, twin_x.grad)
    for layers, twin in zip(networks.views(networks.vector.grad), twins, strict=True):
        linears = [part for part in twin if isinstance(part, nn.Linear)]
        for (weight, bias), linear in zip(layers, linears, strict=True):
            assert_close(weight, linear.weight.grad.T)
            assert_close(bias, linear.bias.grad)


@pytest.mark.parametrize("sizes", [(SIZES,), (SIZES, (3, 4, 1))])
def test_backward_leaves_what_autograd_would(sizes: tuple[tuple[int, ...], ...]) -> None:
    """Twice, with other losses: the second gradient replaces the first, though both are written in one place."""
    networks, other = fresh(*sizes), fresh(*sizes)
    for power in (2, 4):
        x = torch.randn(7, 3)
        networks.vector.grad = other.vector.grad = None

        def derivative(*ys: torch.Tensor, power: int = power) -> tuple[torch.Tensor, ...]:
            return torch.stack([y.pow(power).sum() for y in ys]).sum(), *(power * y.pow(power - 1) for y in ys)

        said = networks.backward(x, derivative)
        loss = sum(y.pow(power).sum() for y in other(x))
        loss.backward()
        assert said == pytest.approx(loss.item())
        assert_close(networks.vector.grad, other.vector.grad)


def test_a_perceptron_that_no_loss_reads_gets_no_gradient() -> None:
    networks = fresh(SIZES, (3, 4, 1))
    networks(torch.randn(7, 3))[0].sum().backward()
    read, unread = networks.views(networks.vector.grad)
    assert all(weight.abs().sum() > 0 for weight, _ in read)
    assert all(part.count_nonzero() == 0 for layer in unread for part in layer)


def test_an_optimiser_step_and_loading_reach_the_layers() -> None:
    networks, other = fresh(SIZES), fresh(SIZES)
    x = torch.randn(7, 3)
    before = networks(x)[0].detach()
    networks(x)[0].square().sum().backward()
    torch.optim.Adam(networks.parameters(), lr=0.1, fused=True).step()
    assert not torch.allclose(networks(x)[0], before)
    other.load_state_dict(networks.state_dict())
    assert_close(other(x)[0], networks(x)[0])
    assert_close(networks(x)[0], plain(networks)(x))


def test_a_fresh_policy_is_nearly_even_and_its_weights_are_orthogonal() -> None:
    torch.manual_seed(0)
    networks = MLPs([(4, 64, 2)], "tanh", last_gains=[0.01])
    assert networks(torch.randn(100, 4))[0].abs().max() < 0.1
    weight, _ = networks.layers[0][0]
    assert_close(weight @ weight.T, 2 * torch.eye(4), atol=1e-5, rtol=0)


def test_rectified_units_have_kinks_away_from_the_origin() -> None:
    torch.manual_seed(0)
    weight, bias = MLPs([(4, 64, 2)], "relu", last_gains=[None]).layers[0][0]
    assert weight.abs().max() <= 0.5
    assert 0.2 < bias.std() < 0.35  # even within ±1/2: .29
