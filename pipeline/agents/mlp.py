"""A small network whose cost is its arithmetic: one vector of parameters, one node in the autograd graph.

For sixty-four units a layer, bookkeeping (modules, graph nodes, a dozen little tensors for the optimiser) takes longer
than multiplying. A test compares values and gradients with plain `nn.Linear` layers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ACT = {"tanh": torch.tanh_, "relu": torch.relu_}  # in place
_BACK: dict[str, Any] = {  # gradient before the activation, from the one behind it and the activation itself
    "tanh": torch.ops.aten.tanh_backward,
    "relu": lambda grad, y: torch.ops.aten.threshold_backward(grad, y, 0),
}


class MLP(nn.Module):
    """y = W_n φ(… φ(W_1 x + b_1) …) + b_n.

    Args:
        sizes: inputs, hidden widths, outputs.
        activation: φ, "tanh" or "relu".
        last_gain: orthogonal weights (Saxe et al. 2014) of gain √2, in the last layer of this one, and zero biases; .01
            makes a fresh policy nearly even. None: weights and biases even within ±1/√inputs, as torch's Linear has
            them. Rectified units need such biases, or all their kinks lie in the origin, where the inputs are.
    """

    def __init__(self, sizes: Sequence[int], activation: str, *, last_gain: float | None) -> None:
        super().__init__()
        self.sizes, self.activation = tuple(sizes), activation
        count = sum(before * after + after for before, after in pairwise(sizes))
        self.vector = nn.Parameter(torch.zeros(count))
        self._layers = layers(self.vector.detach(), self.sizes)  # views: they follow every step of the optimiser
        for number, (weight, bias) in enumerate(self._layers, start=1):
            if last_gain is None:
                bound = len(weight) ** -0.5
                nn.init.uniform_(weight, -bound, bound)
                nn.init.uniform_(bias, -bound, bound)
            else:  # as for a Linear layer, whose weight is the transpose of ours
                nn.init.orthogonal_(weight.T, gain=last_gain if number == len(self._layers) else 2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] → [..., outputs]."""
        flat = x.reshape(-1, self.sizes[0])
        if torch.is_grad_enabled():
            y: Tensor = _Function.apply(flat, self.vector, self)  # type: ignore[no-untyped-call]
        else:
            y = self.activations(flat)[-1]
        return y.view(*x.shape[:-1], self.sizes[-1])

    def activations(self, x: Tensor) -> list[Tensor]:
        """The input and every layer's output, [N, ·] each, without gradient."""
        outputs = [x]
        for weight, bias in self._layers[:-1]:
            outputs.append(_ACT[self.activation](torch.addmm(bias, outputs[-1], weight)))
        weight, bias = self._layers[-1]
        outputs.append(torch.addmm(bias, outputs[-1], weight))
        return outputs

    def gradients(self, outputs: Sequence[Tensor], grad: Tensor, *, into_input: bool) -> tuple[Tensor | None, Tensor]:
        """∂L/∂x (where asked) and ∂L/∂vector, from ∂L/∂y [N, outputs]."""
        vector = torch.empty_like(self.vector)
        views = layers(vector, self.sizes)
        for number in range(len(views) - 1, -1, -1):
            x, (weight, _), (to_weight, to_bias) = outputs[number], self._layers[number], views[number]
            torch.mm(x.T, grad, out=to_weight)
            torch.sum(grad, dim=0, out=to_bias)
            if number:
                grad = _BACK[self.activation](grad @ weight.T, x)
        return (grad @ self._layers[0][0].T if into_input else None), vector


class _Function(torch.autograd.Function):
    """`MLP` as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, vector: Tensor, network: MLP) -> Tensor:
        outputs = network.activations(x)
        ctx.network = network
        ctx.save_for_backward(*outputs[:-1])
        return outputs[-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        into_input = ctx.needs_input_grad[0]
        return *ctx.network.gradients(ctx.saved_tensors, grads[0], into_input=into_input), None


def layers(vector: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Views of a parameter vector: (weight [inputs, outputs], bias [outputs]) of every layer."""
    views, start = [], 0
    for before, after in pairwise(sizes):
        middle, end = start + before * after, start + before * after + after
        views.append((vector[start:middle].view(before, after), vector[middle:end]))
        start = end
    return views
