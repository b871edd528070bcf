"""What every rollout engine promises: ours, transformers' continuous batching, and vLLM (a fake where it isn't)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.lm.backbone import Backbone
from pipeline.lm.continuous_sampler import ContinuousSampler
from pipeline.lm.generate import Completions, Sampler, generate
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.lm.sources import ModelError
from pipeline.lm.vllm_sampler import VllmSampler

from .builders import fill, noisy, tiny
from .test_vllm_sampler import FakeEngine, faked

PROMPTS = [[5, 6, 7], [8, 9]]


@pytest.fixture(params=["own", "transformers", "vllm"])
def engine(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Backbone, Sampler]:
    backbone = noisy(tiny(cache), "policy", std=0.1)
    if request.param == "own":
        return backbone, generate
    if request.param == "transformers":
        return backbone, ContinuousSampler(backbone)
    FakeEngine.twin = tiny(cache)
    return backbone, faked(backbone, monkeypatch)


def draw(engine: tuple[Backbone, Sampler], seed: int, adapter: str | None = "policy", **options: Any) -> Completions:
    backbone, sampler = engine
    generator = torch.Generator().manual_seed(seed)
    return sampler(backbone, adapter, PROMPTS, **{"max_new_tokens": 6, "generator": generator} | options)


def test_rollouts_are_the_policys(engine: tuple[Backbone, Sampler]) -> None:
    """Rows of one prompt are adjacent, right-padded, and a fresh pass agrees with the log-probs; the adapter as it is
    at that moment acts."""
    backbone, sampler = engine
    policy = LanguagePolicy(backbone, temperature=0.7, sampler=sampler)
    for seed in (1, 2):
        rollout = policy.generate(PROMPTS, group_size=3, max_new_tokens=6, generator=torch.Generator().manual_seed(1))
        assert rollout.context["prompt_lengths"].tolist() == [3, 3, 3, 2, 2, 2]
        assert rollout.lengths.max() <= 6
        fresh = rollout_logprobs(backbone, "policy", rollout, temperature=0.7, batch_size=4)
        assert_close(rollout.logprobs, fresh, atol=1e-4, rtol=0)
        assert backbone.roles.active is None
        fill(backbone, "policy", seed=seed, std=0.2)


def test_a_row_ends_with_its_first_stop_token(engine: tuple[Backbone, Sampler]) -> None:
    backbone, _ = engine
    stops = set(range(0, 259, 4))
    backbone.chat.stop_ids = tuple(sorted(stops))
    if isinstance(engine[1], VllmSampler):
        FakeEngine.twin.chat.stop_ids = backbone.chat.stop_ids
    done = draw(engine, 0, group_size=8, max_new_tokens=7)
    rows = [done.ids(row) for row in range(16)]
    assert all(not stops & set(ids[:-1]) for ids in rows)
    assert [ids[-1] in stops for ids in rows] == done.stopped.tolist()
    assert all(len(ids) == 7 for ids, stopped in zip(rows, done.stopped, strict=True) if not stopped)
    assert done.stopped.sum() > 0
    assert len({len(ids) for ids in rows}) > 2


def test_one_seed_one_rollout(engine: tuple[Backbone, Sampler]) -> None:
    first, again, other = (draw(engine, seed, group_size=4).tokens.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_the_base_answers_without_an_adapter(engine: tuple[Backbone, Sampler]) -> None:
    base, policy = draw(engine, 0, None), draw(engine, 0)
    assert not torch.allclose(base.logprobs[:, 0], policy.logprobs[:, 0], atol=1e-3)


def test_what_is_drawn_has_the_frequency_of_its_probability(engine: tuple[Backbone, Sampler]) -> None:
    """E[−log π(a)] of one token is the entropy of π: four standard errors of 400 draws."""
    backbone, _ = engine
    done = draw(engine, 3, group_size=200, temperature=0.5, max_new_tokens=1)
    entropies, variances = [], []
    for prompt in PROMPTS:
        with backbone.roles.using("policy"):
            table = (backbone.base(input_ids=torch.tensor([prompt])).logits[0, -1].detach() / 0.5).log_softmax(-1)
        entropies.append(-(table.exp() * table).sum())
        variances.append((table.exp() * table.square()).sum() - entropies[-1].square())
    off = -done.logprobs.mean() - torch.stack(entropies).mean()
    assert off.abs() < 4 * (torch.stack(variances).mean() / 400).sqrt()


def test_what_cannot_be_paged_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny(cache)
    sampler = ContinuousSampler(backbone)

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no pages here")

    monkeypatch.setattr(backbone.base, "generate_batch", refuse)
    before = backbone.config._attn_implementation
    with pytest.raises(ModelError, match="no pages here; use own"):
        sampler(backbone, None, PROMPTS, max_new_tokens=2)
    assert backbone.config._attn_implementation == before
