"""Decoding the Llama family fast: folded weights, a cache of fixed size, no module calls, on a GPU a graph a token."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from pipeline.lm.backbone import Backbone
from pipeline.lm.decoder import read_prompts
from pipeline.lm.fused import in_family, projections
from pipeline.lm.packing import full_attention
from pipeline.lm.products import half_on_cpu, packed


class StaticDecoder:
    """The Llama family's layer written out, over folded weights and a cache of fixed size.

    Args:
        max_new_tokens: room in the cache behind the prompts.
        growing: attend to the part of the cache that is filled. False attends to all of it under the mask, so that
            every step has the same shapes.
    """

    leave_at = 0.125

    def __init__(self, backbone: Backbone, max_new_tokens: int, *, growing: bool = True) -> None:
        self.lower: Tensor | None = None
        self._boundary = backbone.lower.boundary if backbone.lower is not None else -1
        self._backbone, self._room, self._growing = backbone, max_new_tokens, growing
        trunk = backbone.trunk
        self._embed, self._rotary, self._norm = trunk.embed_tokens, trunk.rotary_emb, _norm(trunk.norm, last=True)
        self._layers = [_FoldedLayer(layer, copied=i >= self._boundary) for i, layer in enumerate(trunk.layers)]
        self._head = packed(backbone.head_weight, backbone.head_bias)
        self._keys: list[Tensor] = []  # each [b,KV,W + max_new_tokens,head_dim]
        self._values: list[Tensor] = []
        self._mask = torch.empty(0)  # [b,1,1,W + max_new_tokens] bool
        self.positions = torch.empty(0)  # [b] of the token to come
        self.column = torch.empty(0)  # [1], the cache's next free one
        self._filled = 0

    @staticmethod
    def supports(backbone: Backbone) -> bool:
        """The family's layers, unquantised, with full attention everywhere."""
        if not backbone.fast or backbone.sharded:
            return False
        quantised = any(type(module).__module__.startswith("bitsandbytes") for module in backbone.trunk.modules())
        return in_family(backbone.config) and full_attention(backbone.config) and not quantised

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        with self._watching():
            hidden, cache = read_prompts(self._backbone, ids, mask)
        width = ids.shape[1]
        for layer in cache.layers:
            for store, read in ((self._keys, layer.keys), (self._values, layer.values)):
                prompts, heads, _, size = read.shape
                kept = read.new_zeros(prompts * group_size, heads, width + self._room, size)
                kept[:, :, :width] = read.repeat_interleave(group_size, 0)
                store.append(kept)
        seen = nn.functional.pad(mask.bool(), (0, self._room))  # what is still to come is masked
        self._mask = seen.repeat_interleave(group_size, 0)[:, None, None].contiguous()
        self.positions = mask.sum(1).repeat_interleave(group_size, 0)
        self.column = torch.tensor([width], device=mask.device)
        self._filled = width
        return self._head(hidden).float().repeat_interleave(group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        hidden = self._embed(tokens)
        cos, sin = self._rotary(hidden, self.positions[:, None])  # [b,1,head_dim] each
        self._filled += 1
        end = self._filled if self._growing else None
        mask = self._mask.index_fill_(3, self.column, True)[..., :end]
        for index, (layer, keys, values) in enumerate(zip(self._layers, self._keys, self._values, strict=True)):
            if index == self._boundary:
                self.lower = hidden
            hidden = layer.step(hidden, cos, sin, keys[:, :, :end], values[:, :, :end], mask, self.column)
        # In place: a recorded step must find and leave its state where it is.
        self.positions.add_(1)
        self.column.add_(1)
        return self._head(self._norm(hidden)).float()

    def keep(self, rows: Tensor) -> None:
        # One layer at a time: the old tensor is gone before the next is copied.
        for store in (self._keys, self._values):
            for index, kept in enumerate(store):
                store[index] = kept[rows]
        self._mask, self.positions = self._mask[rows], self.positions[rows]

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


class GraphDecoder:
    """A static decoder's step as one CUDA graph: on a GPU, launching a small model's kernels takes longer than running
    them. The graph is recorded at the first step, and again when rows have left."""

    leave_at = 0.5

    def __init__(self, decoder: StaticDecoder) -> None:
        self._decoder = decoder
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tokens = self._logits = torch.empty(0)

    @property
    def lower(self) -> Tensor | None:
        return self._decoder.lower

    def prefill(self, ids: Tensor, mask: Tensor, group_size: int) -> Tensor:
        self._graph = None
        return self._decoder.prefill(ids, mask, group_size)

    def step(self, tokens: Tensor) -> Tensor:
        if self._graph is None:
            self._record(tokens)
        assert self._graph is not None
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits

    def keep(self, rows: Tensor) -> None:
        self._graph = None
        self._decoder.keep(rows)

    def _record(self, tokens: Tensor) -> None:
        """Run the step once, which allocates what the libraries need, undo it, and record it."""
        self._tokens = tokens.clone()
        state = (self._decoder.positions, self._decoder.column)
        before = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._decoder.step(self._tokens)
        torch.cuda.current_stream().wait_stream(side)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._decoder.step(self._tokens)


class _FoldedLayer:
    """One decoder layer with W ← W + s·BA, its projections of the same input joined. A layer that never carries an
    adapter isn't copied: its own weights multiply a little slower, and take no room a second time. Nor is any in half
    precision on a CPU, which multiplies halves so fast that nothing is gained by folding, and folding would round most
    of an adapter away."""

    def __init__(self, layer: Any, *, copied: bool = True) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = attention.head_dim
        self.input_norm, self.mlp_norm = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.query_norm = _norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key_norm = _norm(attention.k_norm) if hasattr(attention, "k_norm") else None
        queries = attention.q_proj.out_features
        keys = attention.k_proj.out_features
        self.split = [queries, keys, keys]
        fold = _folded if copied and not half_on_cpu(attention.o_proj.weight) else _unfolded
        self.project = fold(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = fold(attention.o_proj)
        self.gate_up, self.down = fold(mlp.gate_proj, mlp.up_proj), fold(mlp.down_proj)

    def step(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, mask: Tensor, column: Tensor
    ) -> Tensor:
        """hidden [b,D] → [b,D]; writes this token's key and value into `column` of `keys`, `values`."""
        rows = len(hidden)
        query, key, value = self.project(self.input_norm(hidden)).split(self.split, dim=-1)
        query, key = (part.reshape(rows, -1, self.head_dim) for part in (query, key))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        keys.index_copy_(2, column, _rotate(key, cos, sin).unsqueeze(2))
        values.index_copy_(2, column, value.reshape(rows, -1, 1, self.head_dim))
        # The query heads that share a key head stand as rows of its attention: nothing is repeated.
        grouped = _rotate(query, cos, sin).view(rows, keys.shape[1], -1, self.head_dim)
        attended = _attended(grouped, keys, values, mask)
        hidden = hidden + self.out(attended.reshape(rows, -1))
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(silu(gate).mul_(up))


def _attended(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of few queries [b,KV,q,d] to keys and values [b,KV,L,d] under a mask [b,1,1,L] → [b,KV,q,d]. torch's
    kernel is made for many queries: on a CPU it takes three times as long for these."""
    if keys.device.type != "cpu" or keys.dtype != torch.float32:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return torch.softmax(scores.masked_fill_(~mask, -torch.inf), dim=-1) @ values


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [b,H,d] by angles [b,1,d]."""
    half = x.shape[-1] // 2
    return (x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin).to(x.dtype)


def _norm(module: Any, *, last: bool = False) -> Callable[[Tensor], Tensor]:
    """What follows multiplies in the weights' dtype, but for the last one, which keeps that of the residual stream."""
    weight, eps = module.weight, module.variance_epsilon

    def normalised(x: Tensor) -> Tensor:
        out = rms_norm(x, weight.shape, weight.to(x.dtype), eps)
        return out if last else out.to(weight.dtype)

    return normalised


def _folded(*layers: nn.Module) -> Callable[[Tensor], Tensor]:
    """x → concatenated outputs of `layers`, each with its active adapter folded in."""
    weights, biases = zip(*(_effective(layer) for layer in layers), strict=True)
    bias = torch.cat(biases) if biases[0] is not None else None
    return packed(torch.cat(weights), bias)


def _unfolded(*layers: nn.Module) -> Callable[[Tensor], Tensor]:
    """x → concatenated outputs of `layers` with their own weights, adapters beside them, as in training."""
    if len(layers) == 1:
        return lambda x: projections(x, *layers)[0]
    return lambda x: torch.cat(projections(x, *layers), dim=-1)


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
