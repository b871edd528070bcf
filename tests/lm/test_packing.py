"""Packed sequences give what padded ones give, in every architecture that can be packed; the others are padded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipeline.lm import fused
from pipeline.lm.backbone import Backbone
from pipeline.lm.packing import Packing, States

from .builders import SIZES, in_turn, noisy, other_architecture, tiny

SPECIAL: dict[str, Any] = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
PACKED: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, **SPECIAL),
    "mistral": MistralConfig(**SIZES, **SPECIAL, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, **SPECIAL),
    "qwen3": Qwen3Config(**SIZES, **SPECIAL, head_dim=16),
    "phi": PhiConfig(**SIZES, **SPECIAL),
    "gpt2": GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=256, **SPECIAL),
    "neox": GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}, **SPECIAL),
}
SEQUENCES = [[5, 6, 7, 8, 9], [40], [5, 6, 7, 90, 9, 10, 11], [1, 2], [1, 2], [1, 2, 3]]  # beginnings in common


def plain(backbone: Backbone, adapter: str | None) -> torch.Tensor:
    hidden = backbone.hidden(adapter, backbone.pad(SEQUENCES))
    return torch.cat([hidden[row, : len(sequence)] for row, sequence in enumerate(SEQUENCES)])


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_states_and_gradients_equal_the_padded_ones(
    family: str, checkpointing: bool, cache: Path, tmp_path: Path
) -> None:
    name = str(other_architecture(tmp_path, cache, PACKED[family]))
    shared = noisy(tiny(cache, name=name, gradient_checkpointing=checkpointing), "policy", std=0.1)
    parameters = shared.roles.train_only("policy")
    assert shared.packs
    found, expected = in_turn(shared.states("policy", SEQUENCES), SEQUENCES), plain(shared, "policy")
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((states * weights).sum(), parameters) for states in (found, expected)]
    assert any(gradient.abs().max() > 1e-2 for gradient in gradients[0])
    assert_close(*gradients, atol=1e-4, rtol=1e-4)  # sums over 20 positions


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, **SPECIAL, sliding_window=4),
        Gemma2Config(**SIZES, **SPECIAL, head_dim=8),
        Qwen2Config(**SIZES, **SPECIAL, sliding_window=4, use_sliding_window=True, max_window_layers=0),
    ],
    ids=["window", "gemma2", "qwen2 with a window"],
)
def test_what_cannot_be_packed_is_padded(config: Any, cache: Path, tmp_path: Path) -> None:
    shared = noisy(tiny(cache, name=str(other_architecture(tmp_path, cache, config))), "policy", std=0.1)
    assert not shared.packs
    assert_close(in_turn(shared.states("policy", SEQUENCES), SEQUENCES), plain(shared, "policy"))


def test_a_model_that_mixes_its_sequences_is_not_packed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would whose forward pass doesn't hand the packing on."""

    def forgetful(*args: Any, packing: Any = None, **options: Any) -> Any:
        mask = args[4] if packing is None else None
        return sdpa_attention_forward(*args[:4], mask, **options)

    monkeypatch.setattr(fused, "attention", forgetful)
    shared = noisy(tiny(cache), "policy")
    assert not shared.packs
    assert_close(in_turn(shared.states("policy", SEQUENCES), SEQUENCES), plain(shared, "policy"))


def test_what_sequences_share_stands_once() -> None:
    packing = Packing([[7, 8], [5, 6, 9], [5], [5, 6, 7]], torch.device("cpu"))
    assert packing.ids.tolist() == [5, 6, 7, 9, 7, 8]  # 5 | 5 6 7 | 5 6 9 | 7 8
    assert packing.positions.tolist() == [0, 1, 2, 2, 0, 1]
    assert packing.places.tolist() == [[4, 5, 0], [0, 1, 3], [0, 0, 0], [0, 1, 2]]
    x = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, 1, 6, 1)
    assert packing.spread(x)[:, 0, :, 0].tolist() == [[5, 6, 1], [1, 2, 4], [1, 1, 1], [1, 2, 3]]
    assert packing.gather(packing.spread(x)).flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_states_of_chosen_tokens() -> None:
    states = States(torch.arange(6.0)[:, None], torch.tensor([[4, 5, 0], [0, 1, 3]]))
    assert states.at(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2])).flatten().tolist() == [5, 0, 3]
