"""A base with one adapter merged into its weights: an ordinary model that needs neither PEFT nor this project."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.lm.options import quantization_config, unreachable
from pipeline.lm.sources import ModelError


def stored_dtype(source: str, *, trust_remote_code: bool = False) -> torch.dtype:
    """The dtype that a model's own files hold; fp32 where they don't tell."""
    found = getattr(AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code), "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32


def merge(
    source: str,
    adapter: Path,
    *,
    dtype: torch.dtype,
    quantization: str = "none",
    compute: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
) -> Any:
    """W ← W + (α/r)·BA in fp32, then rounded to `dtype`. A quantised base is dequantised first: its rounded weights are
    what the adapter was trained on.

    Args:
        source: folder or hub id of the base.
        adapter: PEFT folder; or a whole model's, which stands for itself.
        quantization: none, 8bit or 4bit, as the base was loaded for training; `compute` is what it computed in.
        device: where a quantised base is loaded.

    Raises:
        ModelError: the base can't be loaded.
    """
    if not (adapter / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(adapter, use_safetensors=True, dtype=dtype)
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": trust_remote_code}
    if quantization != "none":
        options["quantization_config"] = quantization_config(quantization, compute)
        options["device_map"] = {"": device}
    try:
        base: Any = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **options)
    except (OSError, ConnectionError) as error:
        raise ModelError(unreachable(source, error)) from None
    if quantization != "none":
        base = base.dequantize(dtype=torch.float32)
    merged: Any = PeftModel.from_pretrained(base.float(), str(adapter)).merge_and_unload()
    return merged.to(dtype)


def save(model: Any, folder: Path) -> None:
    """An ordinary folder that older readers understand, too.

    transformers 5 says as `rope_parameters` how fast rotary positions turn. Who stands on older versions
    looks for `rope_theta` and `rope_scaling`, and takes 10,000 in silence where they aren't.
    """
    model.save_pretrained(folder)
    file = folder / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    rotary = dict(settings.get("rope_parameters") or {})
    if "rope_theta" not in rotary:  # none, or a kind of its own for each kind of layer
        return
    settings["rope_theta"] = rotary.pop("rope_theta")
    if rotary.get("rope_type", "default") != "default":
        settings["rope_scaling"] = rotary
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def plain_logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """log π of an answer's tokens [T] at temperature 1 under an ordinary transformers model: one sequence, all logits.
    Slow and plain, for comparisons."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    table = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    return table[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).squeeze(1).cpu()
