"""What a base model is loaded with: chat format, device, dtype, quantisation, adapted layers, dropout off."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.pytorch_utils import Conv1D

from pipeline import processes
from pipeline.lm.chat import ChatFormat
from pipeline.lm.sources import ModelError


def choose_device(device: str = "auto") -> torch.device:
    """CUDA when there is one (each process its own), then Apple's MPS, then the CPU; or what the user names."""
    if device != "auto":
        if device == "cuda" and not torch.cuda.is_available():
            raise ModelError("model.device cuda: torch sees no CUDA device; use auto or cpu")
        if device == "mps" and not torch.backends.mps.is_available():
            raise ModelError("model.device mps: torch sees no Apple GPU; use auto or cpu")
        return torch.device(device) if device != "cuda" else _gpu()
    if torch.cuda.is_available():
        return _gpu()
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _gpu() -> torch.device:
    """The one and only, or among several processes of one machine the one with this process's number."""
    return torch.device("cuda", processes.local_rank()) if processes.world() > 1 else torch.device("cuda")


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """fp32 on CPU and MPS, bf16 on GPUs that have it, fp32 on those that don't; or what the user names."""
    if dtype != "auto":
        return getattr(torch, dtype)  # type: ignore[no-any-return]
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if bf16 else torch.float32


def adapted_layers(layers: str | float | Sequence[int], count: int) -> list[int] | None:
    """Indices of the layers that carry adapters; None = all of `count`.

    Raises:
        ModelError: an index outside the model, or a fraction that leaves no layer.
    """
    if layers == "all":
        return None
    if isinstance(layers, (str, int, float)):
        share = 0.5 if layers == "upper" else float(layers)
        chosen = list(range(count - round(share * count), count))
    else:
        chosen = sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise ModelError(f"lora.layers {layers!r}: the model has layers 0 to {count - 1}; choose at least one")
    return chosen


def require_text_only(config: Any) -> None:
    """Raises ModelError for a model of several parts, one of which reads images or sound (Gemma 3 from 4B on)."""
    if not hasattr(config, "num_hidden_layers"):
        raise ModelError(
            f"model.name: {config.model_type} reads more than text, and its parts are configured apart; "
            "take a text-only model"
        )


def linear_names(base: Any, targets: str | Sequence[str]) -> str | list[str]:
    """'all-linear' as a list of module names: PEFT wants names where layers are chosen too."""
    if targets != "all-linear":
        return targets if isinstance(targets, str) else list(targets)
    head = base.get_output_embeddings()
    linear = (name for name, m in base.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head)
    return sorted({name.rpartition(".")[2] for name in linear})


def lora_config(base: Any, lora: Mapping[str, Any]) -> LoraConfig:
    """PEFT's configuration for a base, of the keys of config.LoraSection."""
    layers = adapted_layers(lora["layers"], base.config.num_hidden_layers)
    return LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"] if layers is None else linear_names(base, lora["targets"]),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def disable_dropout(model: nn.Module) -> None:
    """Dropout off in either mode: log-probs of the same tokens must agree between sampling and training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def load_chat(source: str, *, template: str | None = None, trust_remote_code: bool = False) -> ChatFormat:
    """The tokenizer of a folder or hub id with its template and every end token that its generation config names.

    Raises:
        OSError, ConnectionError: not there, or not reachable.
        TemplateError: no template that can be used.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:  # no file of its own: what the model's config says
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        generation = GenerationConfig.from_model_config(config)
    stop = generation.eos_token_id
    return ChatFormat(tokenizer, template=template, stop_ids=[stop] if isinstance(stop, int) else list(stop or []))


def quantization_config(kind: str, compute: torch.dtype) -> BitsAndBytesConfig:
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def unreachable(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"model.name {name!r} can't be loaded: {reason} "
        "If the hub can't be reached from here, download the model elsewhere and give its folder as model.name."
    )
