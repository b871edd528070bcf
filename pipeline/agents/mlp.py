"""Small networks whose cost is their arithmetic: one vector of parameters, one node in the autograd graph.

For sixty-four units a layer, bookkeeping (modules, graph nodes, a dozen little tensors for the optimiser) takes longer
than multiplying. A test compares values and gradients with plain `nn.Linear` layers.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ACT = {"tanh": torch.tanh_, "relu": torch.relu_}  # in place
_BACK: dict[str, Any] = {  # gradient before the activation, from the one behind it and the activation itself
    "tanh": torch.ops.aten.tanh_backward.default,
    "relu": lambda grad, y: torch.ops.aten.threshold_backward.default(grad, y, 0),
}
Layers = list[tuple[Tensor, Tensor]]  # weight [inputs, outputs] and bias [outputs] of each


class MLPs(nn.Module):
    """Several perceptrons that see the same input: y = W_n φ(… φ(W_1 x + b_1) …) + b_n each.

    Args:
        sizes: inputs, hidden widths, outputs; of every perceptron.
        activation: φ, "tanh" or "relu".
        last_gains: of every perceptron: orthogonal weights (Saxe et al. 2014) of gain √2, in the last layer of this
            one, and zero biases; .01 makes a fresh policy nearly even. None: weights and biases even within
            ±1/√inputs, as torch's Linear has them. Rectified units need such biases, or all their kinks lie in the
            origin, where the inputs are.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], activation: str, *, last_gains: Sequence[float | None]) -> None:
        super().__init__()
        self.sizes, self.activation = [tuple(one) for one in sizes], activation
        self._lengths = [length for one in sizes for a, b in pairwise(one) for length in (a * b, b)]
        self.vector = nn.Parameter(torch.zeros(sum(self._lengths)))
        self.layers = self.views(self.vector.detach())  # they follow every step of the optimiser
        self._gradient = torch.empty_like(self.vector)
        self._into = self.views(self._gradient)
        for layers, last_gain in zip(self.layers, last_gains, strict=True):
            for number, (weight, bias) in enumerate(layers, start=1):
                if last_gain is None:
                    bound = len(weight) ** -0.5
                    nn.init.uniform_(weight, -bound, bound)
                    nn.init.uniform_(bias, -bound, bound)
                else:  # as for a Linear layer, whose weight is the transpose of ours
                    nn.init.orthogonal_(weight.T, gain=last_gain if number == len(layers) else 2**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[..., inputs] → [..., outputs] of every perceptron."""
        flat = x.reshape(-1, self.sizes[0][0])
        if torch.is_grad_enabled():
            ys: Sequence[Tensor] = _Function.apply(flat, self.vector, self)  # type: ignore[no-untyped-call]
        else:
            ys = [self.activations(number, flat)[-1] for number in range(len(self.sizes))]
        return tuple(y.view(*x.shape[:-1], y.shape[-1]) for y in ys)

    @torch.no_grad()
    def only(self, number: int, x: Tensor) -> Tensor:
        """[..., inputs] → [..., outputs] of one perceptron, without gradient."""
        y = self.activations(number, x.reshape(-1, self.sizes[number][0]))[-1]
        return y.view(*x.shape[:-1], y.shape[-1])

    def activations(self, number: int, x: Tensor) -> list[Tensor]:
        """The input and the output of every layer of one perceptron, [N, ·] each, without gradient."""
        outputs = [x]
        for weight, bias in self.layers[number][:-1]:
            outputs.append(_ACT[self.activation](torch.addmm(bias, outputs[-1], weight)))
        weight, bias = self.layers[number][-1]
        outputs.append(torch.addmm(bias, outputs[-1], weight))
        return outputs

    def gradients(self, number: int, inputs: Sequence[Tensor], grad: Tensor, into: Layers) -> Tensor:
        """Writes ∂L/∂(weights, biases) of one perceptron, from its layers' inputs and ∂L/∂y [N, outputs].

        Returns:
            ∂L/∂ of the first layer's output before φ.
        """
        layers = self.layers[number]
        for place in range(len(layers) - 1, -1, -1):
            x, (to_weight, to_bias) = inputs[place], into[place]
            torch.mm(x.T, grad, out=to_weight)
            torch.sum(grad, dim=0, out=to_bias)
            if place:
                grad = _BACK[self.activation](grad @ layers[place][0].T, x)
        return grad

    @torch.no_grad()
    def backward(self, x: Tensor, derivative: Callable[..., tuple[Tensor, ...]]) -> float:
        """As `loss(*self(x)).backward()`, for x [N, inputs], without a graph; returns the loss.

        Args:
            derivative: of the outputs: the loss, then ∂loss/∂ of each output.

        The gradient is written where the last one was: it replaces what was there.
        """
        runs = [self.activations(number, x) for number in range(len(self.sizes))]
        loss, *grads = derivative(*(run[-1] for run in runs))
        for number, (run, grad, into) in enumerate(zip(runs, grads, self._into, strict=True)):
            self.gradients(number, run[:-1], grad, into)
        self.vector.grad = self._gradient
        return loss.item()

    def views(self, vector: Tensor) -> list[Layers]:
        """A parameter vector as the layers of every perceptron."""
        parts = iter(torch.split_with_sizes(vector, self._lengths))
        return [[(next(parts).view(a, b), next(parts)) for a, b in pairwise(one)] for one in self.sizes]


class _Function(torch.autograd.Function):
    """`MLPs` as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, vector: Tensor, network: MLPs) -> tuple[Tensor, ...]:
        runs = [network.activations(number, x) for number in range(len(network.sizes))]
        ctx.network = network
        ctx.save_for_backward(x, *(output for run in runs for output in run[1:-1]))
        return tuple(run[-1] for run in runs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        network: MLPs = ctx.network
        x, *hidden = ctx.saved_tensors
        vector = torch.empty_like(network.vector)
        to_input: Tensor | None = None
        for number, (into, grad) in enumerate(zip(network.views(vector), grads, strict=True)):
            own, hidden = hidden[: len(into) - 1], hidden[len(into) - 1 :]
            first = network.gradients(number, [x, *own], grad, into)
            if ctx.needs_input_grad[0]:
                part = first @ network.layers[number][0][0].T
                to_input = part if to_input is None else to_input + part
        return to_input, vector, None
