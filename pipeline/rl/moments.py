"""Running mean and variance, for normalising observations and rewards while they come in."""

import torch
from torch import Tensor

from pipeline.rl.tensors import check_shape


class RunningMoments:
    """Mean and population variance of everything seen, merged batch by batch (Chan, Golub & LeVeque 1983).

    mean ← mean + δ n_b/n;  M₂ ← M₂ + M₂_b + δ² n_a n_b/n, with δ = mean_b − mean.

    Args:
        shape: of one item; () for numbers.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self._squares = torch.zeros(shape, dtype=torch.float64)  # M₂, sum of squared deviations

    @property
    def variance(self) -> Tensor:
        """Population variance; 1 before anything was seen."""
        return self._squares / self.count if self.count > 0 else torch.ones_like(self._squares)

    def update(self, batch: Tensor) -> None:
        """Take in a batch [N, *shape].

        Raises:
            ValueError: if the shape disagrees.
        """
        check_shape("batch", batch, (len(batch), *self.mean.shape))
        if not len(batch):
            return
        items = batch.double()
        mean = items.mean(dim=0)
        total = self.count + len(items)
        delta = mean - self.mean
        self._squares += (items - mean).square().sum(dim=0) + delta.square() * (self.count * len(items) / total)
        self.mean = self.mean + delta * (len(items) / total)
        self.count = total

    def normalize(self, x: Tensor, *, shift: bool = True, clip: float = 10.0, eps: float = 1e-8) -> Tensor:
        """(x − mean) / √(variance + eps), clipped to ±clip; without `shift` the mean stays, as rewards want.

        Args:
            x: [..., *shape], any float dtype, kept.
        """
        mean = self.mean.to(x.dtype) if shift else 0.0
        scale = torch.rsqrt(self.variance + eps).to(x.dtype)
        return ((x - mean) * scale).clamp(-clip, clip)

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on where another stopped. Raises ValueError if the shape disagrees."""
        check_shape("mean", tensors["mean"], self.mean.shape)
        self.count, self.mean, self._squares = (tensors[name].clone() for name in ("count", "mean", "squares"))
