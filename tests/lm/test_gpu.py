"""What only a CUDA device can show: `pytest -m gpu`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.lm.backbone import Backbone
from pipeline.lm.decoder import PlainDecoder
from pipeline.lm.generate import decoder_for, generate
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.lm.static_decoder import GraphDecoder

from .builders import PROMPTS, fill, noisy, tiny, walk

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def gpu(cache: Path) -> Backbone:
    """fp32, so that rounding explains nothing."""
    return noisy(tiny(cache, device="cuda", dtype="float32"), "policy", std=0.1)


@torch.no_grad()
@pytest.mark.parametrize("layers", ["all", [1]])
@pytest.mark.parametrize(("group_size", "leave"), [(1, False), (3, True)])
def test_replayed_steps_equal_the_models_own(cache: Path, layers: Any, group_size: int, leave: bool) -> None:
    shared = noisy(tiny(cache, device="cuda", dtype="float32", lora={"layers": layers}), "policy", std=0.1)
    with shared.roles.using("policy"):
        fast = decoder_for(shared, 8)
        assert isinstance(fast, GraphDecoder)
        ours = walk(shared, fast, group_size, leave, steps=8)
        theirs = walk(shared, PlainDecoder(shared), group_size, leave, steps=8)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_sampling_again_with_one_seed(gpu: Backbone) -> None:
    first, again = (
        generate(
            gpu,
            "policy",
            PROMPTS,
            group_size=4,
            max_new_tokens=12,
            generator=torch.Generator("cuda").manual_seed(3),
        )
        for _ in range(2)
    )
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.logprobs, again.logprobs)


@pytest.mark.parametrize("layers", ["all", [1]])
def test_kept_logprobs_are_the_models(cache: Path, layers: Any) -> None:
    """With boundary states kept from sampling, and without."""
    shared = noisy(tiny(cache, device="cuda", dtype="float32", lora={"layers": layers}), "policy", std=0.1)
    generator = torch.Generator("cuda").manual_seed(3)
    rollout = LanguagePolicy(shared).generate(PROMPTS, group_size=4, max_new_tokens=12, generator=generator)
    fresh = rollout_logprobs(shared, "policy", rollout, temperature=1.0, batch_size=16)
    assert_close(rollout.logprobs, fresh, atol=1e-4, rtol=1e-4)


def test_the_same_gradients_as_on_the_cpu(cache: Path) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        shared = noisy(tiny(cache, device=device, dtype="float32"), "policy", std=0.1, head=True)
        fill(shared, "policy", seed=2)  # the head, too: a GPU draws other numbers
        policy = LanguagePolicy(shared, critic="shared_trunk")
        policy.trainable_parameters()
        context = {
            "prompt_ids": shared.pad(PROMPTS),
            "prompt_lengths": torch.tensor([4, 2, 7], device=device),
            "lengths": torch.tensor([5, 3, 1], device=device),
        }
        actions = torch.randint(3, 259, (3, 5), generator=torch.Generator().manual_seed(5)).to(device)
        evaluation = policy.evaluate(context, actions)
        assert evaluation.values is not None
        (evaluation.logprobs.sum() + evaluation.values.sum()).backward()
        gradients.append([p.grad.cpu() for p in shared.roles.parameters_of("policy") if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 2
    for mine, other in zip(*gradients, strict=True):
        assert_close(mine, other, atol=1e-3, rtol=1e-3)


def test_bf16_base_fp32_adapters_and_heads(cache: Path) -> None:
    shared = noisy(tiny(cache, device="auto"), "policy", head=True)
    assert shared.device.type == "cuda"
    assert shared.dtype == torch.bfloat16
    assert {p.dtype for p in shared.roles.parameters_of("policy")} == {torch.float32}
    generator = torch.Generator("cuda").manual_seed(3)
    rollout = LanguagePolicy(shared).generate(PROMPTS, group_size=4, max_new_tokens=12, generator=generator)
    fresh = rollout_logprobs(shared, "policy", rollout, temperature=1.0, batch_size=16)
    assert fresh.dtype == torch.float32
    # Folded into bf16 weights, an adapter this loud is rounded; the policy stage logs by how much.
    assert (rollout.logprobs - fresh).abs().mean() < 0.05


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_bases(cache: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    shared = noisy(tiny(cache, device="cuda", quantization=quantization), "policy", std=0.05)
    shared.roles.train_only("policy")
    ids = shared.pad(PROMPTS)
    hidden = shared.hidden("policy", ids)
    shared.logprobs("policy", hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).logprobs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in shared.roles.parameters_of("policy"))
