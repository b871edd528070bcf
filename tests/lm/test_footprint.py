"""Sizes from the configuration alone are those of the model itself."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from pipeline.lm.footprint import Footprint
from pipeline.lm.sources import resolve
from tests.lm.builders import LORA, SIZES, noisy, other_architecture, tiny

SMALL: dict[str, Any] = {"vocab_size": 259, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
CONFIGS = {
    "tiny": None,
    "llama, head shared": LlamaConfig(**SIZES | {"num_hidden_layers": 4}, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES),
    "gpt2": GPT2Config(**SMALL),
}


@pytest.mark.parametrize("layers", ["all", "upper"])
@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_base_and_adapter(cache: Path, tmp_path: Path, name: str, layers: str) -> None:
    config = CONFIGS[name]
    folder = "tiny" if config is None else str(other_architecture(tmp_path, cache, config))
    lora = LORA | {"layers": layers}
    backbone = noisy(tiny(cache, name=folder, lora=lora), "sft")
    size = Footprint.of(resolve(folder, cache_dir=cache), lora)
    adapter = sum(p.numel() for p in backbone.roles.parameters_of("sft"))
    assert size.adapter == adapter
    # Adapters stand inside the base; a shared head is one tensor.
    total = sum(p.numel() for p in backbone._base.parameters())
    assert size.parameters == total - adapter
    head = backbone._base.get_output_embeddings()  # type: ignore[operator, union-attr]
    linear = [m for n, m in backbone._base.named_modules() if isinstance(m, nn.Linear) and "lora_" not in n]
    if name != "gpt2":
        assert size.linear == sum(m.weight.numel() for m in linear if m is not head)
    assert size.adapted == (size.layers // 2 if layers == "upper" else size.layers)


def test_named_targets_alone(cache: Path) -> None:
    lora = LORA | {"targets": ["q_proj", "v_proj"]}
    backbone = noisy(tiny(cache, lora=lora), "sft")
    size = Footprint.of(resolve("tiny", cache_dir=cache), lora)
    assert size.adapter == sum(p.numel() for p in backbone.roles.parameters_of("sft"))


def test_quantisation_shrinks_the_layers_alone() -> None:
    size = Footprint(1000, 800, 10, 2, 2, 8, 16, 8, 8, 25, True)
    assert size.base(2, "none") == 2000
    assert size.base(2, "8bit") == 800 + 400
    assert size.base(2, "4bit") == pytest.approx(800 * 4.127 / 8 + 400)


def test_in_half_precision_a_cpu_has_its_head_in_fp32_and_decodes_from_no_copy() -> None:
    size = Footprint(1000, 800, 10, 2, 2, 8, 16, 8, 8, 25, True)
    head = 25 * 8 * 4
    assert size.wide_head(2) == head
    assert size.wide_head(4) == size.wide_head(2, gpu=True) == 0
    assert size.copy(2) == head
    assert size.copy(4) == 800 * 4 + head
    assert size.copy(2, gpu=True) == 800 * 2 + head / 2


def test_what_grows_with_what() -> None:
    size = Footprint(1000, 800, 10, 4, 2, 8, 16, 8, 4, 25, True)
    assert size.kept(20, 4) == 2 * size.kept(10, 4) == 2 * 2 * size.passing(10, 4)
    assert size.kept(10, 4, checkpointing=True) < size.kept(10, 4)
    assert size.cache(3, 5, 2) == 2 * 3 * 5 * 4 * 4 * 2
    assert size.logits(10**6) == size.logits(128) < size.logits(10**6, gpu=True)
