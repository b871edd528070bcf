"""The fast decoder beside the plain one: the same logits at every step, whatever the architecture and the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import Gemma2Config, MistralConfig, Qwen2Config, Qwen3Config

from pipeline.lm import static_decoder as module
from pipeline.lm.backbone import Backbone
from pipeline.lm.decoder import PlainDecoder
from pipeline.lm.generate import decoder_for
from pipeline.lm.products import packed
from pipeline.lm.static_decoder import StaticDecoder

from .builders import SIZES, noisy, other_architecture, tiny, walk

SPECIAL = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
FAMILIES: dict[str, Any] = {
    "llama": None,
    "mistral": MistralConfig(**SIZES, **SPECIAL, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, **SPECIAL),  # biases on queries, keys and values
    "qwen3": Qwen3Config(**SIZES, **SPECIAL, head_dim=16),  # norms on queries and keys; head_dim isn't D / heads
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    config = FAMILIES[request.param]
    name = "tiny"
    if config is not None:
        name = str(other_architecture(tmp_path_factory.mktemp(request.param), cache, config))
    return noisy(tiny(cache, name=name), "policy", std=0.1)


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["policy", None])
@pytest.mark.parametrize(("group_size", "leave"), [(1, False), (2, False), (1, True), (3, True)])
def test_fast_equals_plain(family: Backbone, adapter: str | None, group_size: int, leave: bool) -> None:
    with family.roles.using(adapter):
        fast = decoder_for(family, 6)
        assert isinstance(fast, StaticDecoder)
        ours = walk(family, fast, group_size, leave)
        theirs = walk(family, PlainDecoder(family), group_size, leave)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert (theirs[0] - theirs[-1][: len(theirs[0])] if not leave else theirs[0]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize(("group_size", "leave"), [(1, True), (2, False)])
def test_steps_of_one_shape_equal_growing_ones(family: Backbone, group_size: int, leave: bool) -> None:
    """What a GPU records: attention over the whole cache, the part to come masked."""
    with family.roles.using("policy"):
        still = walk(family, StaticDecoder(family, 8, growing=False), group_size, leave)  # two columns stay empty
        growing = walk(family, StaticDecoder(family, 8), group_size, leave)
    for mine, other in zip(still, growing, strict=True):
        assert_close(mine, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_adapter_on_some_layers_and_some_modules(cache: Path) -> None:
    shared = noisy(tiny(cache, lora={"layers": [1], "targets": ["q_proj", "down_proj"]}), "policy", std=0.3)
    with shared.roles.using("policy"):
        ours = walk(shared, StaticDecoder(shared, 6), 1, False)
        theirs = walk(shared, PlainDecoder(shared), 1, False)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_in_half_precision_a_small_adapter_is_not_rounded_away(cache: Path) -> None:
    """Folded into bf16 weights three quarters of this one would be lost."""
    shared = noisy(tiny(cache, dtype="bfloat16"), "policy", std=0.003)
    with shared.roles.using("policy"):
        ours = walk(shared, StaticDecoder(shared, 6), 2, False)
        theirs = walk(shared, PlainDecoder(shared), 2, False)
    with shared.roles.using(None):
        base = walk(shared, PlainDecoder(shared), 2, False)
    error, effect = (torch.cat(ours) - torch.cat(theirs)).norm(), (torch.cat(theirs) - torch.cat(base)).norm()
    assert error < 0.4 * effect


@torch.no_grad()
def test_folding_leaves_the_weights_alone(cache: Path) -> None:
    shared = noisy(tiny(cache), "policy")
    before = {name: value.clone() for name, value in shared.state_dict().items()}
    with shared.roles.using("policy"):
        walk(shared, StaticDecoder(shared, 6), 2, True)
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


def test_what_it_does_not_know_goes_the_plain_way(cache: Path, tmp_path: Path) -> None:
    """A sliding window, capped scores, another activation."""
    window = {"sliding_window": 4}
    for index, config in enumerate(
        [
            MistralConfig(**SIZES, **SPECIAL, **window),
            Qwen2Config(**SIZES, **SPECIAL, **window, use_sliding_window=True, max_window_layers=0),
            Gemma2Config(**SIZES, **SPECIAL, head_dim=8),
            Qwen2Config(**SIZES, **SPECIAL, hidden_act="gelu"),
        ]
    ):
        shared = tiny(cache, name=str(other_architecture(tmp_path / str(index), cache, config)))
        assert isinstance(decoder_for(shared, 4), PlainDecoder), config.model_type


def test_four_bit_goes_the_plain_way(cache: Path) -> None:
    assert isinstance(decoder_for(tiny(cache, quantization="4bit"), 4), PlainDecoder)


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 48)])
@pytest.mark.parametrize("onednn", [True, False])
def test_packed_weights_multiply_the_same(
    monkeypatch: pytest.MonkeyPatch, rows: int, bias: Tensor | None, onednn: bool
) -> None:
    monkeypatch.setattr(module.torch.backends.mkldnn, "is_available", lambda: onednn)
    weight, x = torch.randn(48, 32), torch.randn(rows, 32)
    assert_close(packed(weight, bias)(x), torch.nn.functional.linear(x, weight, bias), atol=1e-4, rtol=1e-4)
