"""What is vLLM's own as the sampler, on a fake that answers with the interface of vllm 0.11: no GPU, no vLLM here. What
every sampler promises is in test_samplers.py."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import generate
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.lm.sources import ModelError
from pipeline.lm.vllm_sampler import VllmSampler

from .builders import tiny

PROMPTS = [[5, 6, 7], [8, 9]]


@dataclass
class Request:
    lora_name: str
    lora_int_id: int
    lora_path: str


class FakeEngine:
    """Draws with our own sampler, under the adapter that it was told to load; remembers what it was asked."""

    twin: Backbone

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.requests: list[Request | None] = []

    def generate(self, prompts: list[Any], settings: Any, *, lora_request: Request | None, use_tqdm: bool) -> list[Any]:
        self.requests.append(lora_request)
        name = None if lora_request is None else lora_request.lora_name
        if lora_request is not None:
            self.twin.roles.load(name, lora_request.lora_path)
        outputs = []
        generator = torch.Generator().manual_seed(settings.seed)
        for prompt in prompts:
            done = generate(
                self.twin,
                name,
                [prompt["prompt_token_ids"]],
                group_size=settings.n,
                temperature=settings.temperature,
                max_new_tokens=settings.max_tokens,
                generator=generator,
            )
            rows = [
                SimpleNamespace(
                    token_ids=tuple(done.ids(row)),
                    logprobs=[
                        {token: SimpleNamespace(logprob=done.logprobs[row, t].item())}
                        for t, token in enumerate(done.ids(row))
                    ],
                    finish_reason="stop" if done.stopped[row] else "length",
                )
                for row in range(settings.n)
            ]
            outputs.append(SimpleNamespace(outputs=rows))
        return outputs


def faked(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> VllmSampler:
    """A sampler whose vLLM is the fake."""
    vllm: Any = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = FakeEngine, SimpleNamespace
    request: Any = ModuleType("vllm.lora.request")
    request.LoRARequest = Request
    for name, module in {"vllm": vllm, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return VllmSampler(backbone, memory=0.3, max_length=64)


@pytest.fixture
def sampler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Backbone, VllmSampler]:
    backbone, FakeEngine.twin = tiny(cache), tiny(cache)
    torch.manual_seed(0)
    backbone.roles.add("policy")
    disturb(backbone)
    return backbone, faked(backbone, monkeypatch)


def disturb(backbone: Backbone) -> None:
    with torch.no_grad():
        for parameter in backbone.roles.parameters_of("policy"):
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_every_rollout_loads_the_adapter_as_it_is_now(sampler: tuple[Backbone, VllmSampler]) -> None:
    backbone, vllm = sampler
    policy = LanguagePolicy(backbone, sampler=vllm)
    for _ in range(2):
        rollout = policy.generate(PROMPTS, max_new_tokens=4, generator=torch.Generator().manual_seed(1))
        fresh = rollout_logprobs(backbone, "policy", rollout, temperature=1.0, batch_size=4)
        assert_close(rollout.logprobs, fresh, atol=1e-4, rtol=0)  # fails where the engine keeps the first adapter
        disturb(backbone)
    asked = vllm._engine.requests
    assert [request.lora_int_id for request in asked] == [1, 2]


def test_the_engine_samples_the_pure_softmax(sampler: tuple[Backbone, VllmSampler]) -> None:
    backbone, vllm = sampler
    options = vllm._engine.options
    assert options["generation_config"] == "vllm"
    assert options["logprobs_mode"] == "processed_logprobs"
    assert options["max_lora_rank"] == 8  # the least that vLLM has for rank 4
    assert Path(options["model"]).is_dir()
    vllm(backbone, None, PROMPTS, max_new_tokens=2)
    assert vllm._engine.requests == [None]  # the base needs no adapter


def test_without_vllm_one_sentence_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"pip install 'align-pipeline\[vllm\]'"):
        VllmSampler(tiny(cache), memory=0.3, max_length=64)
