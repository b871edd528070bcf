"""One tiny random model of each architecture, with what is peculiar to it switched on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.lm.sources import resolve
from tests.lm.builders import SIZES

SPECIAL: dict[str, Any] = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
UNGROUPED = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
WINDOW = 6  # tokens; the tests' sequences are longer


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        config: of a model with two layers.
        packs, lower, static: whether the fast ways know it: packed sequences, a shared lower trunk, the written-out
            decoder. What they don't know goes the plain way.
        targets: two of its linear layers by name, not all of them.
        tokenizer: what the model's folder has, see `write`.
    """

    config: Any
    packs: bool
    lower: bool
    static: bool
    targets: tuple[str, str]
    tokenizer: str = "own"


FAMILIES: dict[str, Family] = {
    "llama": Family(
        LlamaConfig(**SIZES, **SPECIAL, attention_bias=True, mlp_bias=True), True, True, True, ("q_proj", "down_proj")
    ),
    "llama, shared head": Family(
        LlamaConfig(**SIZES, **SPECIAL, tie_word_embeddings=True, head_dim=16),
        True,
        True,
        True,
        ("q_proj", "v_proj"),
        "pad is eos",
    ),
    "mistral": Family(MistralConfig(**SIZES, **SPECIAL, sliding_window=None), True, True, True, ("k_proj", "o_proj")),
    "mistral, window": Family(
        MistralConfig(**SIZES, **SPECIAL, sliding_window=WINDOW), False, False, False, ("q_proj", "v_proj"), "no pad"
    ),
    "qwen2": Family(Qwen2Config(**SIZES, **SPECIAL), True, True, True, ("q_proj", "up_proj"), "no pad"),
    "qwen3": Family(Qwen3Config(**SIZES, **SPECIAL, head_dim=16), True, True, True, ("q_proj", "v_proj"), "chatml"),
    # Embeddings times √D, norms that multiply by 1 + w, one key head for all.
    "gemma": Family(
        GemmaConfig(**SIZES | {"num_key_value_heads": 1}, **SPECIAL, head_dim=16),
        True,
        True,
        False,
        ("q_proj", "down_proj"),
    ),
    # A window in every second layer, capped attention scores and capped logits.
    "gemma2": Family(
        Gemma2Config(
            **SIZES,
            **SPECIAL,
            head_dim=8,
            sliding_window=WINDOW,
            final_logit_softcapping=2.0,
            attn_logit_softcapping=5.0,
        ),
        False,
        False,
        False,
        ("q_proj", "v_proj"),
        "pad is eos",
    ),
    # Norms on queries and keys, other angles in layers with a window than in those without.
    "gemma3": Family(
        Gemma3TextConfig(
            **SIZES,
            **SPECIAL,
            head_dim=16,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention"],
        ),
        False,
        False,
        False,
        ("k_proj", "o_proj"),
    ),
    # Absolute positions, Conv1D, queries, keys and values in one layer.
    "gpt2": Family(
        GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=256, n_inner=80, **SPECIAL),
        True,
        False,
        False,
        ("c_attn", "c_fc"),
        "no pad",
    ),
    # Attention and MLP side by side, one layer whose rows are q, k, v of head 0, then of head 1, …
    "neox": Family(
        GPTNeoXConfig(**UNGROUPED, **SPECIAL), True, False, False, ("query_key_value", "dense_h_to_4h"), "chatml"
    ),
    # Rotates half of each head; its output head has a bias.
    "phi": Family(PhiConfig(**SIZES, **SPECIAL), True, False, False, ("q_proj", "dense")),
    # Queries, keys and values in one layer, gate and up in another, half of each head rotates.
    "phi3": Family(
        Phi3Config(
            **SIZES,
            **SPECIAL,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        True,
        True,
        False,
        ("qkv_proj", "down_proj"),
        "pad is eos",
    ),
}


def write(folder: Path, cache: Path, name: str) -> Path:
    """A model's folder as one finds them: safetensors, configuration, tokenizer.

    Its tokenizer is the tiny model's: "own" has a chat template and a pad token, "chatml" neither a template of its own
    (the stages are told to take chatml), "no pad" no pad token, and of "pad is eos" the two are one token.
    """
    family = FAMILIES[name]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(family.config).float()
    _spread(model)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache))
    if family.tokenizer == "chatml":
        tokenizer.chat_template = None
    elif family.tokenizer == "no pad":
        tokenizer.pad_token = None
    elif family.tokenizer == "pad is eos":
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _spread(model: nn.Module) -> None:
    """Random weights such that everything matters: neighbours, positions, each norm's weight, each bias."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.mul_(5)
        elif parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
