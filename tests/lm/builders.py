"""Small models for the tests: the tiny Llama, and other architectures around the same tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.lm.backbone import Backbone
from pipeline.lm.decoder import padded_left
from pipeline.lm.packing import States
from pipeline.lm.policy import LanguagePolicy
from pipeline.lm.sources import resolve
from pipeline.rl.rollout import Rollout

LORA: dict[str, Any] = {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear", "layers": "all"}
PROMPTS = [[1, 40, 41, 42], [1, 50], [1, 60, 61, 62, 63, 64, 65]]  # lengths 4, 2, 7
SIZES: dict[str, int] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def tiny(cache: Path, *, lora: dict[str, Any] | None = None, name: str = "tiny", **options: Any) -> Backbone:
    """A backbone without adapters, on the CPU unless told otherwise."""
    return Backbone.load(name, lora=LORA | (lora or {}), cache_dir=cache, **{"device": "cpu"} | options)


def noisy(backbone: Backbone, name: str, *, seed: int = 1, std: float = 0.2, head: bool = False) -> Backbone:
    """Add an adapter that does something: all its LoRA weights random."""
    backbone.roles.add(name)
    fill(backbone, name, seed=seed, std=std)
    if head:
        torch.manual_seed(seed)
        backbone.roles.add_head(name)
    return backbone


@torch.no_grad()
def fill(backbone: Backbone, name: str, *, seed: int, std: float = 0.2) -> None:
    """Random weights for an adapter (and its head, if it has one)."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in backbone.roles.parameters_of(name):
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def other_architecture(folder: Path, cache: Path, config: Any, *, spread: float = 5.0) -> Path:
    """A folder with a random model of `config` and the tiny model's tokenizer.

    Weights are spread wider than at initialisation, so that positions and neighbours matter to the next token.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(spread)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(folder)
    return folder


def rollout(backbone: Backbone, adapter: str | None = "policy", *, seed: int = 0, **options: Any) -> Rollout:
    """Six completions of PROMPTS under `adapter`."""
    settings: dict[str, Any] = {"group_size": 2, "max_new_tokens": 6} | options
    temperature = settings.pop("temperature", 1.0)
    policy = LanguagePolicy(backbone, adapter, temperature=temperature)  # type: ignore[arg-type]
    return policy.generate(PROMPTS, generator=torch.Generator().manual_seed(seed), **settings)


def naive_logprobs(
    backbone: Backbone, adapter: str | None, prompt: Sequence[int], answer: Sequence[int], temperature: float = 1.0
) -> Tensor:
    """log π of one answer's tokens: one row, all logits, log_softmax."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = backbone.logits(backbone.hidden(adapter, ids)[0]) / temperature
    table = torch.log_softmax(logits, -1)
    return table[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).squeeze(1)


def in_turn(states: States, sequences: Sequence[Sequence[int]]) -> Tensor:
    """[N,D]: the states of all sequences, one after the other."""
    return torch.cat([states.packed[states.places[row, : len(ids)]] for row, ids in enumerate(sequences)])


def walk(shared: Backbone, decoder: Any, group_size: int, leave: bool, steps: int = 6) -> list[Tensor]:
    """Logits after the prompts and after each of some tokens; some rows leave after the third."""
    ids, mask = padded_left(PROMPTS, 0, shared.device)
    tokens = torch.randint(3, 259, (steps, len(PROMPTS) * group_size), generator=torch.Generator().manual_seed(4))
    seen = [decoder.prefill(ids, mask, group_size).clone()]
    for index, column in enumerate(tokens.to(shared.device)):
        if leave and index == 3:
            decoder.keep(torch.tensor([0, 2], device=shared.device))
        seen.append(decoder.step(column[[0, 2]] if leave and index >= 3 else column).clone())
    return seen
