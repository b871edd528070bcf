"""How large a model is and what its passes keep, from its configuration alone: no weight is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from pipeline.lm.fused import in_family
from pipeline.lm.logprobs import CHUNK, GPU_CHUNK
from pipeline.lm.options import adapted_layers, linear_names, require_text_only

# Bytes a weight of a linear layer: NF4 with double quantisation (Dettmers et al. 2023) and LLM.int8's.
QUANTISED = {"4bit": 4.127 / 8, "8bit": 1.0}
ADAPTER = 4  # bytes a weight; adapters and heads are kept in fp32


@dataclass(frozen=True)
class Footprint:
    """Sizes of a base and its adapters.

    Attributes:
        parameters: of the base, a shared embedding and head once.
        linear: those of the layers' linear maps, which quantisation shrinks.
        adapter: those of one role's adapter, or of a whole model where roles are that.
        layers, adapted: how many there are, and how many stand at or above the first with an adapter.
        hidden, inner, queries, keys, vocabulary: widths of the residual stream, the MLP, all query heads, all key
            heads (as of the values), and the output.
        fused: whether the fast path knows the layer.
        whole: every role has all weights of its own.
    """

    parameters: int
    linear: int
    adapter: int
    layers: int
    adapted: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int
    fused: bool
    whole: bool = False

    @classmethod
    def of(
        cls, source: str, lora: Mapping[str, Any] | None, *, fast: bool = True, trust_remote_code: bool = False
    ) -> "Footprint":
        """Of a folder or hub id; `lora` has the keys of config.LoraSection, or is None for whole roles.

        Raises:
            ModelError: it reads more than text.
        """
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        require_text_only(config)
        with torch.device("meta"):
            base: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        count = config.num_hidden_layers
        head = base.get_output_embeddings()
        linear = {
            name: module.weight
            for name, module in base.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and module is not head
        }
        parameters = sum(parameter.numel() for parameter in base.parameters())
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            parameters=parameters,
            linear=sum(weight.numel() for weight in linear.values()),
            adapter=parameters if lora is None else _adapter(base, linear, lora, count),
            layers=count,
            adapted=count - min((lora and adapted_layers(lora["layers"], count)) or [0]),
            hidden=config.hidden_size,
            # GPT-2's name for it, and its default.
            inner=getattr(config, "intermediate_size", None)
            or getattr(config, "n_inner", None)
            or 4 * config.hidden_size,
            queries=heads * width,
            keys=(getattr(config, "num_key_value_heads", None) or heads) * width,
            vocabulary=config.vocab_size,
            fused=fast and in_family(config),
            whole=lora is None,
        )

    def role(self, width: int) -> float:
        """Bytes of one role's weights, its base's at `width` bytes a weight."""
        return float(self.adapter * (width if self.whole else ADAPTER))

    def base(self, width: int, quantization: str) -> float:
        """Bytes of the frozen base at `width` bytes a weight."""
        if quantization == "none":
            return float(self.parameters * width)
        return self.linear * QUANTISED[quantization] + (self.parameters - self.linear) * width

    def wide_head(self, width: int, *, gpu: bool = False) -> float:
        """Bytes of the head's copy in fp32 that a base in half precision has on a CPU (Backbone.head_weight)."""
        return 0.0 if gpu or self.whole or width == 4 else 4.0 * self.vocabulary * self.hidden

    def kept(self, tokens: float, width: int, *, checkpointing: bool = False) -> float:
        """Bytes that a pass with gradient keeps of `tokens`, from the first adapter upwards."""
        layer = self.passing(tokens, width)
        if checkpointing:
            return tokens * self.hidden * width * self.adapted + layer
        return layer * self.adapted

    def passing(self, tokens: float, width: int) -> float:
        """Bytes that one layer keeps of its tokens for the backward pass; so much is also at work in a pass without
        gradient, and in a backward pass besides what is kept.

        The Llama family's, fused: the inputs of two norms, of the projections, of attention (queries, keys and values
        side by side, its output twice), of the gate (gate, up) and of the last projection. Elsewhere the libraries' own
        layers keep the norms' intermediates and the activation's besides.
        """
        floats = 4 * self.hidden + 3 * self.queries + 2 * self.keys + 3 * self.inner
        if not self.fused or self.whole:
            floats += 6 * self.hidden + self.queries + 2 * self.inner
        return float(floats * tokens * width)

    def cache(self, rows: int, length: int, width: int) -> float:
        """Bytes of the keys and values of `rows` sequences of `length` tokens."""
        return float(2 * rows * length * self.keys * self.layers * width)

    def copy(self, width: int, *, gpu: bool = False) -> float:
        """Bytes of the decoder's copy of what may carry an adapter, folded in, and of the head. In half precision on a
        CPU of the head alone."""
        head = self.wide_head(width, gpu=gpu) or self.vocabulary * self.hidden * width
        folded = self.linear * self.adapted / self.layers * width if gpu or width == 4 else 0.0
        return folded + head if self.fused else 0.0

    def logits(self, tokens: float, *, gpu: bool = False) -> float:
        """Bytes of the logits at work, in fp32: they, their softmax and one more."""
        return 3.0 * 4 * self.vocabulary * min(tokens, GPU_CHUNK if gpu else CHUNK)


def _adapter(base: Any, linear: Mapping[str, torch.Tensor], lora: Mapping[str, Any], count: int) -> int:
    """Weights of an adapter on a base of `count` layers: r·(in + out) of each linear map that it changes."""
    chosen = adapted_layers(lora["layers"], count) or list(range(count))
    targets = linear_names(base, lora["targets"])
    total = 0
    for name, weight in linear.items():
        index = re.search(r"\.(\d+)\.", name)
        if _targeted(name, targets) and (index is None or int(index[1]) in chosen):
            total += lora["r"] * sum(weight.shape)
    return total


def _targeted(name: str, targets: str | list[str]) -> bool:
    if targets == "all-linear":
        return True
    names = [targets] if isinstance(targets, str) else targets
    return any(name == target or name.endswith(f".{target}") for target in names)
