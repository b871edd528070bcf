"""Roles that are whole models: the libraries' gradients, and the backbone's promises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.lm.backbone import Backbone
from pipeline.lm.footprint import Footprint
from pipeline.lm.generate import generate
from pipeline.lm.sources import ModelError
from tests.lm.builders import PROMPTS, SIZES, other_architecture
from tests.lm.families import FAMILIES, write

SEQUENCES = [[1, 40, 41, 42, 7], [1, 40, 41, 9, 8, 5], [1, 60, 61]]


def whole(cache: Path, name: str = "tiny", **options: Any) -> Backbone:
    return Backbone.load(name, lora=None, cache_dir=cache, device="cpu", chat_template="chatml", **options)


def learnt(backbone: Backbone, name: str, seed: int = 1) -> Backbone:
    """Add a role whose every weight differs a little from the base's."""
    backbone.roles.add(name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.roles.parameters_of(name):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return backbone


def loss(backbone: Backbone, name: str, temperature: float = 1.0) -> torch.Tensor:
    """Sum of −log π of every token but the first."""
    states = backbone.states(name, SEQUENCES)
    at = [(row, column) for row, ids in enumerate(SEQUENCES) for column in range(len(ids) - 1)]
    rows, columns = torch.tensor(at).T
    targets = torch.tensor([SEQUENCES[row][column + 1] for row, column in at])
    return -backbone.logprobs(name, states.at(rows, columns), targets, temperature=temperature).logprobs.sum()


def plain_loss(model: Any) -> torch.Tensor:
    """The same by transformers, one sequence at a time."""
    total = torch.zeros(())
    for ids in SEQUENCES:
        row = torch.tensor([ids])
        total = total - model(input_ids=row).logits[0, :-1].log_softmax(-1).gather(1, row[0, 1:, None]).sum()
    return total


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, cache: Path, tmp_path: Path) -> str:
    return str(write(tmp_path / "model", cache, request.param))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_gradient_is_the_librarys(folder: str, cache: Path, checkpointing: bool) -> None:
    backbone = learnt(whole(cache, folder, gradient_checkpointing=checkpointing), "sft")
    parameters = backbone.roles.train_only("sft")
    ours = torch.autograd.grad(loss(backbone, "sft"), parameters)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for theirs, parameter in zip(model.parameters(), parameters, strict=True):
            theirs.copy_(parameter)
    for mine, theirs in zip(ours, torch.autograd.grad(plain_loss(model), list(model.parameters())), strict=True):
        assert_close(mine, theirs, atol=2e-5, rtol=2e-4)


def test_roles_answer_as_separate_models_and_the_base_stays(folder: str, cache: Path) -> None:
    backbone = whole(cache, folder)
    base = [p.clone() for p in backbone._base.parameters()]
    learnt(learnt(backbone, "sft"), "policy", seed=2)
    for name in ("sft", "policy"):
        alone = learnt(whole(cache, folder), name, seed=1 if name == "sft" else 2)
        assert_close(loss(backbone, name), loss(alone, name))
    optimizer = torch.optim.SGD(backbone.roles.train_only("policy"), lr=0.1)
    before = loss(backbone, "sft").item()
    loss(backbone, "policy").backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert loss(backbone, "sft").item() == before
    assert all(torch.equal(p, then) for p, then in zip(backbone._base.parameters(), base, strict=True))
    assert not any(p.requires_grad for p in backbone.roles.parameters_of("sft"))


def test_a_copy_is_exact_and_apart(cache: Path) -> None:
    backbone = learnt(whole(cache), "reward")
    backbone.roles.add_head("reward")
    backbone.roles.clone("reward", "critic")
    pairs = list(zip(*(backbone.roles.parameters_of(name) for name in ("reward", "critic")), strict=True))
    assert all(torch.equal(one, other) and one is not other for one, other in pairs)
    backbone.roles.remove("critic")
    assert backbone.roles.names == ["reward"]
    assert list(backbone.heads) == ["reward"]


def test_what_is_saved_is_an_ordinary_model_and_comes_back(folder: str, cache: Path, tmp_path: Path) -> None:
    backbone = learnt(whole(cache, folder), "sft")
    backbone.roles.add_head("sft")
    backbone.save("sft", tmp_path / "sft")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "sft", dtype=torch.float32)
    assert_close(loss(backbone, "sft"), plain_loss(theirs))
    again = whole(cache, folder)
    again.restore("sft", tmp_path / "sft")
    pairs = zip(again.roles.parameters_of("sft"), backbone.roles.parameters_of("sft"), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_what_does_not_fit_is_told(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="whole model"):
        whole(cache).roles.load("sft", tmp_path)
    narrow = other_architecture(tmp_path / "narrow", cache, LlamaConfig(**SIZES | {"intermediate_size": 48}))
    with pytest.raises(ModelError, match="architecture"):
        whole(cache).roles.load("sft", narrow)


def test_sampling_is_the_roles_own(folder: str, cache: Path) -> None:
    backbone = learnt(whole(cache, folder), "policy")
    kept = generate(backbone, "policy", PROMPTS, max_new_tokens=6, generator=torch.Generator().manual_seed(0))
    plain = learnt(whole(cache, folder, fast=False), "policy")
    fresh = generate(plain, "policy", PROMPTS, max_new_tokens=6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kept.tokens, fresh.tokens)
    assert_close(kept.logprobs, fresh.logprobs, atol=1e-5, rtol=1e-5)
    base = generate(backbone, None, PROMPTS, max_new_tokens=6, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(base.tokens, kept.tokens)


def test_the_footprint_counts_all_weights(folder: str, cache: Path) -> None:
    size, backbone = Footprint.of(folder, None), learnt(whole(cache, folder), "sft")
    count = sum(p.numel() for p in backbone.roles.parameters_of("sft"))
    assert size.adapter == size.parameters == count
    assert size.role(2) == 2 * count
    assert Footprint.of(folder, {"r": 2, "targets": "all-linear", "layers": "all"}).role(2) < size.role(2)
