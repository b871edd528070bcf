"""What is saved is read by programs that know only the keys of before transformers 5."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from pipeline.lm.merging import save

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 16,
}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(input_ids=torch.arange(40)[None]).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("scaling", [{"rope_type": "default"}, LLAMA3])
def test_the_old_keys_say_all_of_the_rotary_positions(tmp_path: Path, scaling: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, rope_parameters={"rope_theta": 500.0, **scaling}))
    save(model, tmp_path)
    file = tmp_path / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert settings["rope_theta"] == 500.0
    assert settings.get("rope_scaling") == (None if scaling["rope_type"] == "default" else LLAMA3)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
    del settings["rope_parameters"]  # as who doesn't know it reads the file
    file.write_text(json.dumps(settings), encoding="utf-8")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
    del settings["rope_theta"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model), atol=1e-4)


def test_positions_of_each_kind_of_layer_stay_as_they_are(tmp_path: Path) -> None:
    """There is no old key for them."""
    model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**SIZES, num_key_value_heads=1, head_dim=16))
    save(model, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {"full_attention", "sliding_attention"} <= set(settings["rope_parameters"])
    assert "rope_theta" not in settings
