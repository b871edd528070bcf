"""One token at a time: what sampling needs of the trunk, in plain and in fast ways behind the same three methods.

`PlainDecoder` here calls the model with a growing cache. `StaticDecoder` knows the Llama family's layer: it folds the
active adapter into a copy of the weights, keeps keys and values in tensors of their final size, and pays for no
module call. On a CPU the copy is packed for oneDNN, which multiplies few rows about a third faster; in half precision
there is none. `GraphDecoder` replays its step as one CUDA graph. All give the same hidden states up to rounding (tests
compare them).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from pipeline.lm.backbone import Backbone


class Decoder(Protocol):
    """Reads left-padded prompts, then one token per row and step; finished rows can leave.

    Attributes:
        leave_at: share of finished rows from which leaving pays: it copies the whole cache.
    """

    leave_at: float

    @property
    def lower(self) -> Tensor | None:
        """Hidden states of what was read last, where they enter the first layer that may carry an adapter: [P,W,D] of
        the prompts, then [b,D] of each token, good until the next step. None where nobody asks for them."""
        ...

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        """Read prompts [P,W] with mask [P,W] (1 = real); logits [P·G,V] after their last token, in fp32."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row [b]; logits [b,V] after it, in fp32."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        ...


class PlainDecoder:
    """Any architecture, through the model's own forward pass."""

    leave_at = 0.125

    def __init__(self, backbone: Backbone) -> None:
        self.lower: Tensor | None = None
        self._backbone = backbone
        self._cache: Any = None
        self._mask = torch.empty(0)

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        hidden, self._cache = read_prompts(self._backbone, ids, mask)
        self._mask = mask.repeat_interleave(group_size, 0)
        if group_size > 1:
            self._cache.batch_repeat_interleave(group_size)
        return self._backbone.logits(hidden).repeat_interleave(group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        out = self._backbone.trunk(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._mask.sum(1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._backbone.logits(out.last_hidden_state[:, -1])

    def keep(self, rows: Tensor) -> None:
        self._mask = self._mask[rows]
        self._cache.batch_select_indices(rows)


def read_prompts(backbone: Backbone, ids: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
    """Run left-padded prompts once, with positions from the mask."""
    cache = DynamicCache(config=backbone.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = backbone.trunk(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return out.last_hidden_state[:, -1], cache


def padded_left(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids [P,W] with padding on the left, and their mask [P,W] (1 = real)."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
