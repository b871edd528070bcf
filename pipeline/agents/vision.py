"""Convolutions: what an agent sees as a picture becomes a vector, with the weights that one learning agent needs.

Frames stay bytes until here. Everything runs with the channels last in memory, also where layers become flat: on a
processor the derivative of the first layer's weights then takes an eighth of the time.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from pipeline.agents.errors import AgentError
from pipeline.config.agents import Precision
from pipeline.rl.action_values import dueling

AT_ONCE = 256  # frames of a pass without gradient


class Convolution(NamedTuple):
    """A layer without padding."""

    channels: int
    size: int
    stride: int


class Architecture(NamedTuple):
    """Convolutions, then dense layers of these widths, all rectified."""

    convolutions: tuple[Convolution, ...]
    hidden: tuple[int, ...]
    smallest: int  # side of a picture


ARCHITECTURES: dict[str, Architecture] = {
    # Mnih et al. 2015, Methods
    "nature": Architecture((Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1)), (512,), 36),
    # Young & Tian 2019, Sec. 4
    "minatar": Architecture((Convolution(16, 3, 1),), (128,), 3),
}
Network = Literal["auto", "mlp", "nature", "minatar"]


def choose(space: spaces.Space[Any], network: Network) -> str | None:
    """The architecture for a space, None for a perceptron; "auto" takes Nature's for pictures of 36 × 36 and more.

    Raises:
        AgentError: if convolutions are asked for and there are no pictures, or too small ones.
    """
    picture = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
    if network == "mlp" or (network == "auto" and not picture):
        return None
    if not picture:
        raise AgentError(
            f"network={network}: observation space {space} is no picture (three dimensions of uint8); use network=mlp"
        )
    side = min(_sides(space)[1:])
    if network == "auto":
        network = "nature" if side >= ARCHITECTURES["nature"].smallest else "minatar"
    if side < ARCHITECTURES[network].smallest:
        raise AgentError(
            f"network={network}: sides of {side} are too small, {ARCHITECTURES[network].smallest} are needed; "
            "use network=minatar or mlp"
        )
    return network


def dtype_of(precision: Precision) -> torch.dtype:
    """In what convolutions multiply; "auto" is bfloat16 where the processor has tiles for its matrices (AMX)."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    tiles = ask is not None and bool(ask())
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and tiles) else torch.float32


class Vision(nn.Module):
    """Pictures → vectors.

    Args:
        space: Box of uint8, [channels, height, width] or [height, width, channels]: the smaller end is the channels.
        architecture: one of ARCHITECTURES.
        hidden: widths of the dense layers; None = the published ones.
        orthogonal: weights of gain √2 and zero biases, as policy gradients like them; else as torch begins.
        precision: of the products, see `dtype_of`; weights, their gradients and what comes out are float32.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        architecture: str,
        hidden: Sequence[int] | None = None,
        *,
        orthogonal: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        convolutions, published, _ = ARCHITECTURES[architecture]
        channels, *sides = _sides(space)
        self._shape = tuple(space.shape or ())
        self._last = self._shape[0] != channels or self._shape[0] == self._shape[2]  # channels
        self._dtype = dtype_of(precision)
        self._scale = 1.0 / float(space.high.max())  # type: ignore[attr-defined]
        self.convolutions = nn.ModuleList()
        for outputs, size, stride in convolutions:
            self.convolutions.append(nn.Conv2d(channels, outputs, size, stride))
            channels, sides = outputs, [(side - size) // stride + 1 for side in sides]
        widths = [channels * sides[0] * sides[1], *(published if hidden is None else hidden)]
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.width = widths[-1]
        if orthogonal:
            for layer in (*self.convolutions, *self.dense):
                _orthogonal(layer, 2**0.5)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor) -> Tensor:
        """[..., *shape] of uint8 → [..., width]."""
        x = pictures.reshape(-1, *self._shape)
        if self._last:
            x = x.permute(0, 3, 1, 2)
        dtype = self._dtype
        # Bytes are exact in bfloat16 too. Both at once would take twice as long.
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        # Scaling weights is the same as scaling pixels, of which there are a hundred times as many.
        scale = self._scale
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            x = torch.relu_(F.conv2d(x, (layer.weight * scale).to(dtype), layer.bias.to(dtype), layer.stride[0]))
            scale = 1.0
        x = x.permute(0, 2, 3, 1).flatten(1)
        for layer in self.dense:
            assert isinstance(layer, nn.Linear)
            x = torch.relu_(F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype)))
        return x.float().view(*pictures.shape[: pictures.ndim - 3], self.width)


class PixelQNetwork(nn.Module):
    """Q(s, ·) of pictures: one head on `Vision`, or a value and an advantage head (`rl.action_values.dueling`)."""

    def __init__(self, vision: Vision, actions: int, *, dueling: bool = False) -> None:
        super().__init__()
        self.vision = vision
        self.head = nn.Linear(vision.width, actions)
        self.value = nn.Linear(vision.width, 1) if dueling else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., *shape] → [..., A]."""
        seen = self.vision(x)
        q: Tensor = self.head(seen)
        return q if self.value is None else dueling(self.value(seen), q)

    def backward(self, x: Tensor, derivative: Callable[[Tensor], tuple[Tensor, Tensor]]) -> float:
        """As `networks.QNetwork.backward`."""
        q = self(x)
        loss, grad = derivative(q.detach())
        q.backward(grad)
        return loss.item()


class PixelNetworks(nn.Module):
    """Several outputs of one `Vision`, such as a policy and a critic; with `mlp.MLPs`' two ways of asking."""

    def __init__(self, vision: Vision, outputs: Sequence[int], *, last_gains: Sequence[float]) -> None:
        super().__init__()
        self.vision = vision
        self.heads = nn.ModuleList(nn.Linear(vision.width, count) for count in outputs)
        for head, gain in zip(self.heads, last_gains, strict=True):
            _orthogonal(head, gain)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[..., *shape] → [..., outputs] of every head."""
        seen = self.vision(x)
        return tuple(head(seen) for head in self.heads)

    @torch.no_grad()
    def only(self, number: int, x: Tensor) -> Tensor:
        """[..., *shape] → [..., outputs] of one head, without gradient."""
        flat = x.reshape(-1, *x.shape[x.ndim - 3 :])
        y = torch.cat([self.heads[number](self.vision(part)) for part in flat.split(AT_ONCE)])
        return y.view(*x.shape[: x.ndim - 3], y.shape[-1])


def _orthogonal(layer: nn.Module, gain: float) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert layer.bias is not None
    nn.init.orthogonal_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)


def _sides(space: spaces.Space[Any]) -> tuple[int, int, int]:
    """Channels, height, width. Of two ends that are alike the last one is the channels."""
    shape = space.shape or ()
    return (shape[0], shape[1], shape[2]) if shape[0] < shape[2] else (shape[2], shape[0], shape[1])
