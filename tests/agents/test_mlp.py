"""The fast network against plain layers: values, gradients, training."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pipeline.agents.mlp import MLP, layers

SIZES = (3, 8, 6, 2)


def plain(network: MLP) -> nn.Sequential:
    """The same network of torch's own layers."""
    act = {"tanh": nn.Tanh, "relu": nn.ReLU}[network.activation]
    parts: list[nn.Module] = []
    for weight, bias in layers(network.vector.detach(), network.sizes):
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
        parts += [linear, act()]
    return nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [SIZES, (3, 2)])
def test_values_and_gradients_are_those_of_plain_layers(activation: str, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = MLP(sizes, activation, last_gain=1.0)
    network.vector.data += 0.1 * torch.randn_like(network.vector)  # biases, too
    twin = plain(network)
    x = torch.randn(4, 5, 3, requires_grad=True)
    twin_x = x.detach().clone().requires_grad_()
    y, twin_y = network(x), twin(twin_x)
    assert y.shape == (4, 5, 2)
    assert_close(y, twin_y)
    with torch.no_grad():
        assert_close(network(x), y)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (twin_y * weights).sum().backward()
    assert_close(x.grad, twin_x.grad)
    linears = [part for part in twin if isinstance(part, nn.Linear)]
    for (weight, bias), linear in zip(layers(network.vector.grad, sizes), linears, strict=True):
        assert_close(weight, linear.weight.grad.T)
        assert_close(bias, linear.bias.grad)


def test_an_optimiser_step_and_loading_reach_the_layers() -> None:
    torch.manual_seed(0)
    network, other = MLP(SIZES, "tanh", last_gain=1.0), MLP(SIZES, "tanh", last_gain=1.0)
    x = torch.randn(7, 3)
    before = network(x).detach()
    network(x).square().sum().backward()
    torch.optim.Adam(network.parameters(), lr=0.1, fused=True).step()
    assert not torch.allclose(network(x), before)
    other.load_state_dict(network.state_dict())
    assert_close(other(x), network(x))
    assert_close(network(x), plain(network)(x))


def test_a_fresh_policy_is_nearly_even_and_its_weights_are_orthogonal() -> None:
    torch.manual_seed(0)
    network = MLP((4, 64, 2), "tanh", last_gain=0.01)
    assert network(torch.randn(100, 4)).abs().max() < 0.1
    weight = layers(network.vector.detach(), network.sizes)[0][0]
    assert_close(weight @ weight.T, 2 * torch.eye(4), atol=1e-5, rtol=0)


def test_rectified_units_have_kinks_away_from_the_origin() -> None:
    torch.manual_seed(0)
    network = MLP((4, 64, 2), "relu", last_gain=None)
    weight, bias = layers(network.vector.detach(), network.sizes)[0]
    assert weight.abs().max() <= 0.5
    assert 0.2 < bias.std() < 0.35  # even within ±1/2: .29
