"""One token at a time: what sampling needs of the trunk, in a plain and in a fast way behind the same three methods.

`PlainDecoder` calls the model with a growing cache. `StaticDecoder` knows the Llama family's layer: it folds the
active adapter into a copy of the weights, keeps keys and values in tensors of their final size, and pays for no
module call. On a CPU the copy is packed for oneDNN, which multiplies few rows about a third faster. Both give the
same hidden states up to rounding (a test compares them).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu
from transformers import DynamicCache

from pipeline.lm.backbone import Backbone
from pipeline.lm.fused import FAMILY

PACKED_ROWS = 32  # the row count that oneDNN is asked to pack for; others work too


class Decoder(Protocol):
    """Reads left-padded prompts, then one token per row and step; finished rows can leave.

    Attributes:
        lower: hidden states of what was read last, where they enter the first layer that may carry an adapter:
            [P,W,D] of the prompts, then [b,D] of each token. None where nobody asks for them.
    """

    lower: Tensor | None

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        """Read prompts [P,W] with mask [P,W] (1 = real); logits [P·G,V] after their last token, in fp32."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row [b]; logits [b,V] after it, in fp32."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        ...


def decoder_for(backbone: Backbone, max_new_tokens: int) -> Decoder:
    """The fast decoder where the architecture allows it, for the adapter that is active now."""
    if StaticDecoder.supports(backbone):
        return StaticDecoder(backbone, max_new_tokens)
    return PlainDecoder(backbone)


class PlainDecoder:
    """Any architecture, through the model's own forward pass."""

    def __init__(self, backbone: Backbone) -> None:
        self.lower: Tensor | None = None
        self._backbone = backbone
        self._cache: Any = None
        self._mask = torch.empty(0)

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        hidden, self._cache = _read_prompts(self._backbone, ids, mask)
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


class StaticDecoder:
    """The Llama family's layer written out, over folded weights and a cache of fixed size."""

    def __init__(self, backbone: Backbone, max_new_tokens: int) -> None:
        self.lower: Tensor | None = None
        self._boundary = backbone.lower.boundary if backbone.lower is not None else -1
        self._backbone, self._room = backbone, max_new_tokens
        trunk = backbone.trunk
        self._embed, self._rotary, self._norm = trunk.embed_tokens, trunk.rotary_emb, _norm(trunk.norm)
        self._layers = [_FoldedLayer(layer) for layer in trunk.layers]
        self._head = packed(backbone.head_weight)
        self._keys: list[Tensor] = []  # each [b,KV,W + max_new_tokens,head_dim]
        self._values: list[Tensor] = []
        self._mask = torch.empty(0)  # [b,1,1,W + max_new_tokens] bool
        self._positions = torch.empty(0)  # [b] of the token to come
        self._filled = 0

    @staticmethod
    def supports(backbone: Backbone) -> bool:
        """The family's layers, unquantised, with full attention everywhere."""
        config = backbone.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        return (
            config.model_type in FAMILY
            and config.hidden_act == "silu"
            and kinds == {"full_attention"}
            and getattr(config, "sliding_window", None) is None
            and not any(type(module).__module__.startswith("bitsandbytes") for module in backbone.trunk.modules())
        )

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        with self._watching():
            hidden, cache = _read_prompts(self._backbone, ids, mask)
        width = ids.shape[1]
        for layer in cache.layers:
            for store, read in ((self._keys, layer.keys), (self._values, layer.values)):
                prompts, heads, _, size = read.shape
                kept = read.new_empty(prompts * group_size, heads, width + self._room, size)
                kept[:, :, :width] = read.repeat_interleave(group_size, 0)
                store.append(kept)
        seen = torch.cat([mask.bool(), mask.new_ones(len(mask), self._room, dtype=torch.bool)], dim=1)
        self._mask = seen.repeat_interleave(group_size, 0)[:, None, None]
        self._positions = mask.sum(1).repeat_interleave(group_size, 0)
        self._filled = width
        return self._head(hidden).float().repeat_interleave(group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        hidden = self._embed(tokens)
        cos, sin = self._rotary(hidden, self._positions[:, None])  # [b,1,head_dim] each
        end = self._filled + 1
        mask = self._mask[..., :end]
        for index, (layer, keys, values) in enumerate(zip(self._layers, self._keys, self._values, strict=True)):
            if index == self._boundary:
                self.lower = hidden
            hidden = layer.step(hidden, cos, sin, keys[:, :, :end], values[:, :, :end], mask)
        self._positions = self._positions + 1
        self._filled = end
        return self._head(self._norm(hidden)).float()

    def keep(self, rows: Tensor) -> None:
        # One layer at a time: the old tensor is gone before the next is copied.
        for store in (self._keys, self._values):
            for index, kept in enumerate(store):
                store[index] = kept[rows]
        self._mask, self._positions = self._mask[rows], self._positions[rows]

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Note what enters the boundary layer while the model's own forward pass runs."""
        if self._boundary < 0:
            yield
            return

        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.lower = inputs[0]

        hook = self._backbone.trunk.layers[self._boundary].register_forward_pre_hook(note)
        try:
            yield
        finally:
            hook.remove()


class _FoldedLayer:
    """One decoder layer with W ← W + s·BA, its projections of the same input joined."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.input_norm, self.mlp_norm = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.query_norm = _norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key_norm = _norm(attention.k_norm) if hasattr(attention, "k_norm") else None
        queries = attention.q_proj.out_features
        keys = attention.k_proj.out_features
        self.split = [queries, keys, keys]
        self.project = _folded(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = _folded(attention.o_proj)
        self.gate_up, self.down = _folded(mlp.gate_proj, mlp.up_proj), _folded(mlp.down_proj)

    def step(self, hidden: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """hidden [b,D] → [b,D]; writes this token's key and value into the last column of `keys`, `values`."""
        rows = len(hidden)
        query, key, value = self.project(self.input_norm(hidden)).split(self.split, dim=-1)
        query, key = (part.reshape(rows, -1, self.head_dim) for part in (query, key))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        keys[:, :, -1] = _rotate(key, cos, sin)
        values[:, :, -1] = value.reshape(rows, -1, self.head_dim)
        # The query heads that share a key head stand as rows of its attention: nothing is repeated.
        grouped = _rotate(query, cos, sin).view(rows, keys.shape[1], -1, self.head_dim)
        attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        hidden = hidden + self.out(attended.reshape(rows, -1))
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(silu(gate).mul_(up))


def _read_prompts(backbone: Backbone, ids: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
    """Run left-padded prompts once, with positions from the mask."""
    cache = DynamicCache(config=backbone.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = backbone.trunk(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return out.last_hidden_state[:, -1], cache


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [b,H,d] by angles [b,1,d]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    weight, eps = module.weight, module.variance_epsilon
    return lambda x: rms_norm(x, weight.shape, weight, eps)


def _folded(*layers: nn.Module) -> Callable[[Tensor], Tensor]:
    """x → concatenated outputs of `layers`, each with its active adapter folded in."""
    weights, biases = zip(*(_effective(layer) for layer in layers), strict=True)
    bias = torch.cat(biases) if biases[0] is not None else None
    return packed(torch.cat(weights), bias)


def packed(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x → xWᵀ + b, with W laid out for few rows where oneDNN can (fp32 on a CPU)."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return lambda x: linear(x, weight, bias)
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, blocked, bias, "none", [], "")  # type: ignore[no-any-return]


def _effective(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer as the active adapter makes them."""
    if not isinstance(layer, LoraLayer):
        return layer.weight, layer.bias
    base: Any = layer.base_layer
    if layer.disable_adapters:
        return base.weight, base.bias
    (name,) = layer.active_adapters
    parts: Any = (layer.lora_A, layer.lora_B)
    down, up = (part[name].weight.to(base.weight.dtype) for part in parts)
    return torch.addmm(base.weight, up, down, alpha=layer.scaling[name]), base.bias


def padded_left(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids [P,W] with padding on the left, and their mask [P,W] (1 = real)."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
