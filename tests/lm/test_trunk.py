"""The remembered lower trunk gives what the whole model gives."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import GraniteConfig, LlamaConfig, LlamaForCausalLM

from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import generate
from pipeline.lm.options import adapted_layers
from pipeline.lm.sources import ModelError
from pipeline.lm.state_memory import StateMemory
from pipeline.lm.trunk import LowerTrunk

from .builders import SIZES, in_turn, noisy, other_architecture, tiny

SEQUENCES = [[5, 6, 7, 8, 9], [5, 6], [5, 6, 7, 8, 9, 10, 11], [5, 6]]


@pytest.fixture
def split(tmp_path: Path) -> Backbone:
    """A four-layer model with noisy adapters on layers 2 and 3."""
    Backbone.load("tiny", lora=lora("all"), device="cpu", cache_dir=tmp_path)
    config = LlamaConfig.from_pretrained(tmp_path / "tiny-0", num_hidden_layers=4)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tiny-0")
    backbone = Backbone.load("tiny", lora=lora("upper"), device="cpu", cache_dir=tmp_path)
    for name in ("sft", "policy"):
        backbone.roles.add(name)
        with torch.no_grad():
            for parameter in backbone.roles.parameters_of(name):
                parameter.normal_(std=0.1)
    return backbone


def lora(layers: object) -> dict[str, object]:
    return {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear", "layers": layers}


@pytest.mark.parametrize("adapter", [None, "sft", "policy"])
def test_states_equal_the_plain_path(split: Backbone, adapter: str | None) -> None:
    for _ in range(2):  # computed, then remembered
        fast = in_turn(split.states(adapter, SEQUENCES), SEQUENCES)
        plain = split.hidden(adapter, split.pad(SEQUENCES))
        real = [plain[row, : len(sequence)] for row, sequence in enumerate(SEQUENCES)]
        assert_close(fast, torch.cat(real), atol=1e-5, rtol=1e-5)


def test_gradients_equal_the_plain_path(split: Backbone) -> None:
    parameters = split.roles.train_only("policy")
    ids = split.pad(SEQUENCES)
    real = ids != split.chat.tokenizer.pad_token_id
    plain = torch.autograd.grad(split.hidden("policy", ids)[real].square().sum(), parameters)
    fast = torch.autograd.grad(in_turn(split.states("policy", SEQUENCES), SEQUENCES).square().sum(), parameters)
    assert any(gradient.abs().max() > 1e-3 for gradient in plain)
    assert_close(fast, plain, atol=1e-4, rtol=1e-4)  # sums over 16 positions


def test_only_upper_layers_carry_adapters(split: Backbone) -> None:
    names = [name for name, _ in split.named_parameters() if ".lora_" in name]
    assert names
    assert all(".layers.2." in name or ".layers.3." in name for name in names)


def test_remembered_states_are_not_computed_again(split: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    split.states("sft", SEQUENCES)
    assert split.lower is not None
    monkeypatch.setattr(split.lower, "_compute", lambda rows: pytest.fail(f"computed again: {rows}"))
    split.lower.states(SEQUENCES[:2])


def test_states_that_leave_memory_come_from_the_file(split: Backbone, tmp_path: Path) -> None:
    assert split.lower is not None
    expected = split.lower.states(SEQUENCES)
    width = split.config.hidden_size * 4
    lower = LowerTrunk(split.lower._trunk, 2, StateMemory(8 * width, tmp_path / "states"))  # room for eight tokens
    lower.states(SEQUENCES)
    lower._compute = lambda rows: pytest.fail(f"computed again: {rows}")  # type: ignore[method-assign]
    assert_close(lower.states(SEQUENCES), expected, atol=0, rtol=0)


def test_the_trunk_is_whole_again_after_an_error(split: Backbone) -> None:
    assert split.lower is not None
    with pytest.raises(RuntimeError), split.lower._only(slice(0, 2), torch.nn.Identity()):
        raise RuntimeError
    assert len(split.lower._trunk.layers) == 4


@pytest.mark.parametrize(("scale", "shares"), [(1.0, True), (12.0, False)])
def test_models_that_scale_their_embeddings_take_the_plain_path(
    cache: Path, tmp_path: Path, scale: float, shares: bool
) -> None:
    """What enters the upper layers would be scaled a second time."""
    special = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
    config = GraniteConfig(**SIZES, **special, embedding_multiplier=scale)
    folder = other_architecture(tmp_path, cache, config)
    backbone = noisy(tiny(cache, name=str(folder), lora={"layers": "upper"}), "policy")
    assert backbone.packs
    assert (backbone.lower is not None) == shares
    plain = backbone.hidden("policy", backbone.pad(SEQUENCES))
    real = [plain[row, : len(sequence)] for row, sequence in enumerate(SEQUENCES)]
    assert_close(in_turn(backbone.states("policy", SEQUENCES), SEQUENCES), torch.cat(real), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", None), ("upper", [2, 3]), (0.25, [3]), (1.0, [0, 1, 2, 3]), ([3, 1], [1, 3])],
)
def test_which_layers(layers: object, expected: list[int] | None) -> None:
    assert adapted_layers(layers, 4) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [0.0, [4], [-1, 2], []])
def test_layers_that_do_not_exist_are_refused(layers: object) -> None:
    with pytest.raises(ModelError, match=r"lora\.layers"):
        adapted_layers(layers, 4)  # type: ignore[arg-type]


# ---- states kept while sampling -----------------------------------------------------------------------------

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


@pytest.mark.parametrize(("stop", "limit"), [((-1,), 6), (tuple(range(40, 259, 3)), 12)])
@pytest.mark.parametrize("adapter", [None, "policy"])
def test_sampling_leaves_the_states_that_a_fresh_pass_computes(
    split: Backbone, adapter: str | None, stop: tuple[int, ...], limit: int
) -> None:
    """Also of the last token, whether a row ends by itself (at different times) or meets the limit."""
    assert split.lower is not None
    split.chat.stop_ids = stop
    generator = torch.Generator().manual_seed(0)
    done = generate(split, adapter, PROMPTS, group_size=3, max_new_tokens=limit, generator=generator)
    sequences = [prompt + done.ids(row) for row, prompt in enumerate(done.prompts)]
    kept = dict(split.lower._memory._near)
    assert set(kept) == {tuple(sequence) for sequence in sequences}
    split.lower.forget()
    fresh = split.lower.states(sequences)
    for sequence, state in zip(sequences, fresh, strict=True):
        assert_close(kept[tuple(sequence)], state, atol=1e-5, rtol=1e-5)
    assert len(set(done.lengths.tolist())) > 1 or stop == (-1,)


def test_what_was_remembered_is_used(split: Backbone) -> None:
    """A planted state shows in the output."""
    assert split.lower is not None
    before = split.states("policy", [[5, 6]]).packed
    split.lower.forget()
    split.lower.remember([5, 6], torch.zeros(2, 32))
    assert not torch.equal(before, split.states("policy", [[5, 6]]).packed)
    split.lower.forget()
    assert torch.equal(before, split.states("policy", [[5, 6]]).packed)
