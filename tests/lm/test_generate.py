"""Sampling: batched like one by one, log-probs that a fresh pass confirms, the right distribution, clean endings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import Gemma2Config, GPT2Config, Qwen2Config

from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, draw, generate

from .builders import PROMPTS, SIZES, naive_logprobs, noisy, other_architecture, tiny

NEVER = 10**6  # no token of any vocabulary: nothing stops
SPECIAL = {"eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0}
LONG = [*PROMPTS, [1, *range(70, 95)]]  # lengths 4, 2, 7, 26: the padding is longer than a sliding window
FAMILIES: dict[str, Any] = {
    "llama": None,
    # Absolute positions: a shift by the padding, which rotary positions forgive, shows here.
    "gpt2": GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=256, **SPECIAL),
    # A window of 8 tokens in every second layer, capped attention scores and capped logits.
    "gemma2": Gemma2Config(
        **SIZES, **SPECIAL, head_dim=8, sliding_window=8, final_logit_softcapping=2.0, attn_logit_softcapping=5.0
    ),
    "qwen2": Qwen2Config(**SIZES, **SPECIAL),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Each architecture with an adapter that does something; nothing stops it early."""
    config = FAMILIES[request.param]
    name = "tiny"
    if config is not None:
        folder = tmp_path_factory.mktemp(request.param)
        name = str(other_architecture(folder, cache, config))
    shared = noisy(tiny(cache, name=name), "policy", std=0.1)
    shared.chat.stop_ids = (NEVER,)
    return shared


@pytest.fixture
def llama(cache: Path) -> Backbone:
    return noisy(tiny(cache), "policy", std=0.3)


def rows(done: Completions) -> list[list[int]]:
    return [done.ids(row) for row in range(len(done.prompts))]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stopping_at(shared: Backbone, *stop_ids: int) -> Backbone:
    shared.chat.stop_ids = stop_ids
    return shared


# ---- batches ------------------------------------------------------------------------------------------------


def test_greedy_in_a_ragged_batch_equals_one_by_one(family: Backbone) -> None:
    together = generate(family, "policy", LONG, temperature=0, max_new_tokens=12)
    alone = [generate(family, "policy", [p], temperature=0, max_new_tokens=12) for p in LONG]
    assert rows(together) == [one.ids(0) for one in alone]
    assert_close(together.logprobs, torch.cat([one.logprobs for one in alone]), atol=1e-4, rtol=0)
    assert len({tuple(row) for row in rows(together)}) > 2  # the prompts do matter


def test_greedy_equals_a_fresh_pass_over_everything_at_each_token(family: Backbone) -> None:
    """No cache, no padding, no positions given: what the model itself says comes next."""
    done = generate(family, "policy", LONG, temperature=0, max_new_tokens=10)
    for prompt, answer in zip(LONG, rows(done), strict=True):
        hidden = family.hidden("policy", torch.tensor([prompt + answer]))[0]
        assert family.logits(hidden).argmax(-1)[len(prompt) - 1 : -1].tolist() == answer


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_kept_while_sampling_equal_a_fresh_pass(family: Backbone, temperature: float) -> None:
    done = generate(
        family, "policy", LONG, group_size=2, temperature=temperature, max_new_tokens=10, generator=seeded()
    )
    for row, prompt in enumerate(done.prompts):
        fresh = naive_logprobs(family, "policy", prompt, done.ids(row), temperature)
        assert_close(done.logprobs[row], fresh, atol=1e-4, rtol=0)


def test_rows_of_a_group_are_adjacent_and_differ(llama: Backbone) -> None:
    stopping_at(llama, NEVER)
    done = generate(llama, "policy", PROMPTS, group_size=3, max_new_tokens=8, generator=seeded())
    assert done.prompts == [prompt for prompt in PROMPTS for _ in range(3)]
    assert len({tuple(row) for row in rows(done)}) == 9


# ---- endings ------------------------------------------------------------------------------------------------


def greedy(shared: Backbone, limit: int = 12) -> list[list[int]]:
    """What each prompt gets when nothing stops it."""
    return rows(generate(stopping_at(shared, NEVER), "policy", PROMPTS, temperature=0, max_new_tokens=limit))


def cut(row: list[int], *stops: int) -> list[int]:
    """A row up to and including its first stop token."""
    ends = [index for index, token in enumerate(row) if token in stops]
    return row[: ends[0] + 1] if ends else row


def test_rows_end_at_different_times_as_if_they_were_alone(llama: Backbone) -> None:
    """Finished rows leave the batch; whoever stays must not notice."""
    free = greedy(llama)
    stops = (free[0][1], free[2][4])  # at least two rows end, at different times
    expected = [cut(row, *stops) for row in free]
    assert len({len(row) for row in expected}) > 1
    done = generate(stopping_at(llama, *stops), "policy", PROMPTS, temperature=0, max_new_tokens=12)
    assert rows(done) == expected
    assert done.lengths.tolist() == [len(row) for row in expected]
    assert done.stopped.tolist() == [row[-1] in stops for row in expected]
    for row, prompt in enumerate(PROMPTS):
        fresh = naive_logprobs(llama, "policy", prompt, done.ids(row))
        assert_close(done.logprobs[row, : len(fresh)], fresh, atol=1e-4, rtol=0)
        assert not done.logprobs[row, len(fresh) :].any()


@pytest.mark.parametrize("which", [0, 1])
def test_each_of_several_stop_ids_ends_a_row(llama: Backbone, which: int) -> None:
    first = greedy(llama)[0][0]
    stops = (first, NEVER) if which == 0 else (NEVER, first)
    done = generate(stopping_at(llama, *stops), "policy", PROMPTS[:1], temperature=0, max_new_tokens=5)
    assert (rows(done), done.stopped.tolist()) == ([[first]], [True])


def test_a_stop_token_inside_the_prompt_ends_nothing(llama: Backbone) -> None:
    prompt = [1, 2, 2, 40, 2]
    done = generate(stopping_at(llama, 2), "policy", [prompt], temperature=0, max_new_tokens=4)
    free = generate(stopping_at(llama, NEVER), "policy", [prompt], temperature=0, max_new_tokens=4)
    assert done.ids(0) == cut(free.ids(0), 2)
    assert len(done.ids(0)) > 1


def test_a_row_that_meets_the_limit_is_not_stopped_even_by_one_token(llama: Backbone) -> None:
    free = greedy(llama, 6)[0]
    last = free[-1]
    at_limit = generate(stopping_at(llama, NEVER), "policy", PROMPTS[:1], temperature=0, max_new_tokens=6)
    assert (at_limit.stopped.tolist(), at_limit.lengths.tolist()) == ([False], [6])
    first = free.index(last)
    exactly = generate(stopping_at(llama, last), "policy", PROMPTS[:1], temperature=0, max_new_tokens=first + 1)
    assert (exactly.stopped.tolist(), exactly.lengths.tolist()) == ([True], [first + 1])


def test_what_stands_after_a_row_is_padding(llama: Backbone) -> None:
    free = greedy(llama)
    done = generate(stopping_at(llama, free[0][0]), "policy", PROMPTS, temperature=0, max_new_tokens=12)
    pad = llama.chat.tokenizer.pad_token_id
    assert done.lengths[0] == 1
    assert done.tokens[0, 1:].tolist() == [pad] * (done.tokens.shape[1] - 1)
    assert done.tokens.shape[1] == int(done.lengths.max())


# ---- randomness ---------------------------------------------------------------------------------------------


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=seeded(seed))


def test_draws_follow_the_distribution() -> None:
    """50 000 draws from (.5, .3, 0, .2): each share within four standard errors, probability 0 never."""
    p = torch.tensor([0.5, 0.3, 0.0, 0.2])
    n = 50_000
    drawn = draw(p.log().expand(n, 4), 1.0, uniform(n, 3))[0]
    shares = torch.bincount(drawn, minlength=4) / n
    assert shares[2] == 0
    assert ((shares - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all()  # 4 SE: four shares, one in 4 000 by chance


@pytest.mark.parametrize("possible", [0, 3, 6])
def test_impossible_tokens_are_never_drawn_wherever_they_stand(possible: int) -> None:
    logits = torch.full((20_000, 7), -torch.inf)
    logits[:, possible] = 0.0
    assert set(draw(logits, 1.0, uniform(20_000))[0].tolist()) == {possible}


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_impossible_tokens_are_not_drawn_at_the_ends_of_the_uniform_range(number: float) -> None:
    """0 and the largest float below 1 come up once in 16 million draws each: too rare to wait for."""
    p = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    assert draw(p.log(), 1.0, torch.tensor([number]))[0].tolist() == [1 if number == 0 else 3]


def test_draws_are_independent_between_rows() -> None:
    """Two rows of one coin agree half of the time."""
    coins = draw(torch.zeros(20_000, 2), 1.0, uniform(20_000, 1))[0].view(-1, 2)
    agree = (coins[:, 0] == coins[:, 1]).float().mean().item()
    assert agree == pytest.approx(0.5, abs=0.02)  # 4 standard errors of 10 000 pairs


def test_a_draw_comes_with_its_logprob_at_the_temperature() -> None:
    logits = torch.randn(64, 9, generator=seeded(2)) * 5
    for temperature in (1.0, 0.3):
        chosen, logprobs = draw(logits, temperature, uniform(64))
        expected = torch.log_softmax(logits / temperature, -1).gather(1, chosen[:, None]).squeeze(1)
        assert_close(logprobs, expected, atol=1e-5, rtol=0)


def test_first_tokens_follow_the_model_at_its_temperature(llama: Backbone) -> None:
    """Total variation to softmax(z/τ) over 4 000 samples: that of τ fits, that of 1 doesn't."""
    prompt = PROMPTS[0]
    done = generate(llama, "policy", [prompt], group_size=4000, temperature=0.2, max_new_tokens=1, generator=seeded(5))
    shares = torch.bincount(done.tokens[:, 0], minlength=259) / 4000
    logits = llama.logits(llama.hidden("policy", torch.tensor([prompt]))[0, -1:])[0].detach()

    def distance(temperature: float) -> float:
        return 0.5 * (shares - torch.softmax(logits / temperature, 0)).abs().sum().item()

    assert distance(0.2) < 0.1  # about .05 is left by chance
    assert distance(1.0) > 0.15


def test_a_completion_has_random_numbers_of_its_own(llama: Backbone) -> None:
    """What a prompt's neighbours say, and when they end, doesn't reach it: only its place among the prompts counts."""
    beside = generate(llama, "policy", [PROMPTS[0], PROMPTS[1]], max_new_tokens=8, generator=seeded(1))
    alone = generate(llama, "policy", [PROMPTS[0]], max_new_tokens=8, generator=seeded(1))
    assert rows(beside)[0] == rows(alone)[0]


def test_the_generator_decides_everything(llama: Backbone) -> None:
    first, again, other = (
        rows(generate(llama, "policy", PROMPTS, max_new_tokens=8, generator=seeded(seed))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_temperature_0_needs_no_randomness_and_reports_logprobs_at_1(llama: Backbone) -> None:
    state = torch.get_rng_state()
    done = generate(llama, "policy", PROMPTS[:1], temperature=0, max_new_tokens=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(done.logprobs[0], naive_logprobs(llama, "policy", PROMPTS[0], done.ids(0)), atol=1e-4, rtol=0)


def test_adapters_answer_for_themselves(llama: Backbone) -> None:
    """One call under the adapter, one under the base, and the base again: no state leaks through the cache."""
    base = generate(llama, None, PROMPTS, temperature=0, max_new_tokens=6)
    policy = generate(llama, "policy", PROMPTS, temperature=0, max_new_tokens=6)
    assert rows(policy) != rows(base)
    assert rows(generate(llama, None, PROMPTS, temperature=0, max_new_tokens=6)) == rows(base)


def test_an_empty_prompt_is_refused(llama: Backbone) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        generate(llama, "policy", [[1, 2], []], max_new_tokens=2)
