"""Every architecture, every way through it: fast ways give the plain way's numbers, or stand aside."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from pipeline.lm.backbone import Backbone
from pipeline.lm.footprint import Footprint
from pipeline.lm.generate import generate
from pipeline.lm.reward import RewardModel
from pipeline.lm.static_decoder import StaticDecoder

from .builders import LORA, in_turn, noisy, tiny
from .families import FAMILIES, WINDOW, Family, write

SHORT, LONG = [1, 40, 41], [1, *range(60, 75), 2]
SEQUENCES = [[5, 6, 7, 8, 9], [40], LONG, [5, 6, 7, 90, 9, 10, 11], [1, 2, 2, 50], [5, 6]]  # beginnings in common
PROMPTS = [SHORT, [1, 50], LONG[:-1]]
SAME = {"atol": 1e-5, "rtol": 1e-5}


class Case:
    """A family's folder, and backbones on it with a noisy policy and a noisy reward model."""

    def __init__(self, name: str, folder: Path, cache: Path) -> None:
        self.name, self.family, self._cache = name, FAMILIES[name], cache
        self.folder = str(write(folder, cache, name))
        self._made: dict[Any, Backbone] = {}

    def backbone(self, *, fast: bool, layers: str = "all", targets: Any = "all-linear") -> Backbone:
        key = fast, layers, str(targets)
        if key not in self._made:
            template = "chatml" if self.family.tokenizer == "chatml" else None
            lora = {"layers": layers, "targets": targets}
            made = tiny(self._cache, name=self.folder, lora=lora, fast=fast, chat_template=template)
            noisy(made, "policy", std=0.1)
            noisy(made, "reward", std=0.1, seed=2, head=True)
            self._made[key] = made
        return self._made[key]

    @property
    def both(self) -> tuple[Backbone, Backbone]:
        return self.backbone(fast=True), self.backbone(fast=False)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("model"), cache)


def naive(backbone: Backbone, adapter: str | None, ids: list[int]) -> Tensor:
    """Hidden states of one sequence alone."""
    return backbone.hidden(adapter, torch.tensor([ids]))[0]


# ---- what is fast --------------------------------------------------------------------------------------------


def test_the_fast_ways_know_what_they_know(case: Case) -> None:
    family: Family = case.family
    fast, plain = case.both
    assert fast.packs == family.packs
    assert (case.backbone(fast=True, layers="upper").lower is not None) == family.lower
    assert StaticDecoder.supports(fast) == family.static
    assert not plain.packs
    assert not StaticDecoder.supports(plain)


@pytest.mark.parametrize("adapter", [None, "policy"])
def test_states_and_gradients_equal_the_plain_ones(case: Case, adapter: str | None) -> None:
    fast, plain = case.both
    expected = torch.cat([naive(plain, adapter, ids) for ids in SEQUENCES])
    found = in_turn(fast.states(adapter, SEQUENCES), SEQUENCES)
    assert_close(found, expected, **SAME)
    if adapter is None:
        return
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for backbone in case.both:
        parameters = backbone.roles.train_only(adapter)
        states = in_turn(backbone.states(adapter, SEQUENCES), SEQUENCES)
        gradients.append(torch.autograd.grad((states * weights).sum(), parameters))
    assert any(gradient.abs().max() > 1e-2 for gradient in gradients[0])
    assert_close(*gradients, atol=1e-4, rtol=1e-4)  # sums over 40 positions


def test_padding_on_the_right_changes_nothing(case: Case) -> None:
    for backbone in case.both:
        padded = backbone.hidden("policy", backbone.pad(SEQUENCES))
        for row, ids in enumerate(SEQUENCES):
            assert_close(padded[row, : len(ids)], naive(backbone, "policy", ids), **SAME)


@pytest.mark.parametrize("adapter", [None, "policy"])
def test_the_lower_trunk_equals_the_plain_way(case: Case, adapter: str | None) -> None:
    """Also where its states were left by sampling."""
    fast, plain = (case.backbone(fast=fast, layers="upper") for fast in (True, False))
    done = sample(fast, adapter)
    answered = [prompt + done.ids(row) for row, prompt in enumerate(done.prompts)]
    for sequences in (SEQUENCES, answered):
        expected = torch.cat([naive(plain, adapter, ids) for ids in sequences])
        assert_close(in_turn(fast.states(adapter, sequences), sequences), expected, **SAME)


# ---- sampling ------------------------------------------------------------------------------------------------


def sample(backbone: Backbone, adapter: str | None) -> Any:
    """Completions that end at different times, some at the limit, beyond every window."""
    before = backbone.chat.stop_ids
    backbone.chat.stop_ids = tuple(range(3, 259, 12))
    try:
        generator = torch.Generator().manual_seed(0)
        return generate(backbone, adapter, PROMPTS, group_size=3, max_new_tokens=2 * WINDOW, generator=generator)
    finally:
        backbone.chat.stop_ids = before


@torch.no_grad()
@pytest.mark.parametrize("fast", [True, False])
def test_log_probs_kept_while_sampling_equal_a_fresh_pass(case: Case, fast: bool) -> None:
    """The fresh pass is the model's own, without our head, cache or padding."""
    backbone = case.backbone(fast=fast)
    done = sample(backbone, "policy")
    assert len(set(done.lengths.tolist())) > 2
    for row, prompt in enumerate(done.prompts):
        answer = done.ids(row)
        ids = torch.tensor([prompt + answer])
        with backbone.roles.using("policy"):
            table = backbone._base(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        fresh = table[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).squeeze(1)
        assert_close(done.logprobs[row, : len(answer)], fresh, atol=1e-4, rtol=0)
        kept = backbone.logprobs(
            "policy", naive(backbone, "policy", ids[0].tolist())[len(prompt) - 1 : -1], torch.tensor(answer)
        )
        assert_close(kept.logprobs, fresh, **SAME)


# ---- scores --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_score_sees_neither_padding_nor_batch_mates(case: Case) -> None:
    fast, plain = case.both
    alone = torch.cat([RewardModel(plain).scores([ids]) for ids in SEQUENCES])
    assert alone.unique().numel() == len(SEQUENCES)
    for backbone in case.both:
        assert_close(RewardModel(backbone).scores(SEQUENCES), alone, **SAME)
        assert_close(RewardModel(backbone).score_sequences(SEQUENCES, batch_size=2), alone, **SAME)
    padded_to = fast.chat.tokenizer.pad_token_id
    assert padded_to == (2 if case.family.tokenizer in ("no pad", "pad is eos") else 0)


# ---- adapters and sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["all", "upper"])
@pytest.mark.parametrize("named", [False, True])
def test_sizes_from_the_configuration_alone_are_the_models_own(case: Case, layers: str, named: bool) -> None:
    targets: Any = list(case.family.targets) if named else "all-linear"
    backbone = case.backbone(fast=True, layers=layers, targets=targets)
    size = Footprint.of(case.folder, LORA | {"layers": layers, "targets": targets})
    own = {id(p) for name in backbone.roles.names for p in backbone.roles.parameters_of(name)}
    base: Any = backbone._base
    linear = [m for n, m in base.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and "lora_" not in n]
    linear = [m for m in linear if m is not base.get_output_embeddings()]
    assert size.parameters == sum(p.numel() for p in base.parameters() if id(p) not in own)
    assert size.linear == sum(m.weight.numel() for m in linear)
    assert size.adapter == sum(p.numel() for n, p in base.named_parameters() if ".policy." in n and "lora_" in n)
    assert (size.layers, size.adapted) == (2, 1 if layers == "upper" else 2)
    assert size.vocabulary == len(backbone.head_weight)
    first = naive(backbone, "policy", SHORT)
    assert not torch.equal(first, naive(backbone, None, SHORT))


def test_adapters_stand_where_the_targets_say(case: Case) -> None:
    base: Any = case.backbone(fast=True)._base
    head = base.get_output_embeddings()
    adapted = {n.rpartition(".")[2] for n, m in base.named_modules() if hasattr(m, "lora_A")}
    linear = {n for n, m in base.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
    assert adapted == {n.removesuffix(".base_layer").rpartition(".")[2] for n in linear if "lora_" not in n}
    few: Any = case.backbone(fast=True, targets=list(case.family.targets))._base
    assert {n.rpartition(".")[2] for n, m in few.named_modules() if hasattr(m, "lora_A")} == set(case.family.targets)


@torch.no_grad()
def test_the_cache_and_the_widths_are_the_models_own(case: Case) -> None:
    size = Footprint.of(case.folder, LORA)
    backbone = case.backbone(fast=False)
    cache = backbone.trunk(input_ids=torch.tensor([SHORT]), use_cache=True).past_key_values
    held = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
    assert size.cache(1, len(SHORT), 1) == held
    mlp = [m for n, m in backbone.trunk.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and ".mlp." in n]
    inputs = {m.weight.shape[0 if isinstance(m, Conv1D) else 1] for m in mlp if not hasattr(m, "lora_A")}
    assert inputs - {size.hidden, LORA["r"]} == {size.inner}
