"""Sampling with a KV cache: the pure softmax at one temperature, finished rows leave the batch.

Only the last position's logits exist at any time, [b,V] a step. The log-probability of each drawn token is
kept, so that nobody has to recompute the behaviour policy afterwards.
"""

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline import processes
from pipeline.lm.backbone import Backbone
from pipeline.lm.decoder import Decoder, PlainDecoder, padded_left
from pipeline.lm.static_decoder import GraphDecoder, StaticDecoder
from pipeline.lm.trunk import LowerTrunk


@dataclass(frozen=True)
class Completions:
    """B completions right-padded to T; rows of one prompt are adjacent."""

    prompts: list[list[int]]  # B rows of token ids
    tokens: Tensor  # [B,T]
    logprobs: Tensor  # [B,T] at the sampling temperature
    lengths: Tensor  # [B]
    stopped: Tensor  # [B] bool: ended with a stop token, not at the limit

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        group_size: int,
        drawn: Sequence[list[int]],
        logprobs: Sequence[Sequence[float]],
        stopped: Sequence[bool],
    ) -> "Completions":
        """What another engine gives as lists, a group's rows side by side."""
        device = backbone.device
        return cls(
            prompts=[list(prompt) for prompt in prompts for _ in range(group_size)],
            tokens=backbone.pad(drawn),
            logprobs=pad_sequence([torch.tensor(row) for row in logprobs], batch_first=True).to(device),
            lengths=torch.tensor([len(ids) for ids in drawn], device=device),
            stopped=torch.tensor(stopped, device=device),
        )

    def ids(self, row: int) -> list[int]:
        """Token ids of one completion."""
        return self.tokens[row, : int(self.lengths[row])].tolist()  # type: ignore[no-any-return]


SEEDS = 2**31
Sampler = Callable[..., Completions]  # whatever draws completions with the arguments of `generate`


def engine_seed(generator: torch.Generator | None) -> int:
    """A seed for an engine that draws with generators of its own, from ours."""
    return int(torch.randint(SEEDS, (), generator=generator, device=generator.device if generator else "cpu"))


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample one index per row of softmax(logits/τ) [b,V]; returns the indices [b] and their log-probabilities [b].

    `uniform` [b] holds the random numbers, in [0, 1).

    Inverts the cumulative distribution, twenty times cheaper than torch.multinomial at V = 49k on a CPU. A token of
    probability 0 is never drawn. τ = 0 takes the likeliest, with its log-probability at τ = 1.
    """
    probabilities = torch.softmax(logits / (temperature or 1.0), dim=-1)
    if temperature == 0:
        chosen = probabilities.argmax(-1, keepdim=True)
    else:
        cumulative = probabilities.cumsum(-1)
        # Rounding lets the last entry miss 1 by a little; scaling u by it keeps every draw inside.
        chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
        chosen.clamp_(max=logits.shape[1] - 1)
    return chosen.squeeze(1), probabilities.gather(1, chosen).log().squeeze(1)


def decoder_for(backbone: Backbone, max_new_tokens: int) -> Decoder:
    """The fastest decoder that architecture and device allow, for the adapter that is active now."""
    if not StaticDecoder.supports(backbone):
        return PlainDecoder(backbone)
    if backbone.device.type == "cuda":
        return GraphDecoder(StaticDecoder(backbone, max_new_tokens, growing=False))
    return StaticDecoder(backbone, max_new_tokens)


@torch.no_grad()
def generate(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
) -> Completions:
    """Sample `group_size` completions for each prompt under `adapter` (None = the base).

    Args:
        prompts: P rows of token ids, each at least one token long.
        temperature: τ of softmax(z/τ); 0 = always the likeliest token (log-probs are then those of τ = 1).
        max_new_tokens: T, the limit; rows that reach it have `stopped` False.
        generator: source of randomness, on the model's device.

    Returns:
        Completions with B = P·group_size rows. Each has random numbers of its own, whatever becomes of the others; so
        processes that share the prompts out draw what one alone would.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("prompts must have at least one token; got an empty one")
    count = len(prompts) * group_size
    shape = count, max_new_tokens
    uniform = torch.zeros(shape, device=backbone.device)
    if temperature > 0:
        uniform.uniform_(generator=generator)
    ((mine, counts),) = processes.batches(range(len(prompts)), len(prompts))
    rows = slice(mine[0] * group_size, (mine[-1] + 1) * group_size)
    own = _sample(backbone, adapter, [prompts[i] for i in mine], group_size, temperature, uniform[rows])
    whole = tuple(part.new_zeros(count, *part.shape[1:]) for part in own)
    if counts:
        for part, found in zip(whole, own, strict=True):
            part[rows] = found
    processes.add(*whole)
    tokens, logprobs, lengths, stopped = whole
    longest = int(lengths.max()) if count else 0
    repeated = [list(prompt) for prompt in prompts for _ in range(group_size)]
    return Completions(repeated, tokens[:, :longest], logprobs[:, :longest], lengths, stopped.bool())


def _sample(
    backbone: Backbone,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    temperature: float,
    uniform: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens and log-probs [B,T], lengths [B], and 1 where a completion ended with a stop token [B], of completions
    drawn with the random numbers `uniform` [B,T]."""
    device, pad = backbone.device, backbone.chat.tokenizer.pad_token_id
    count, max_new_tokens = uniform.shape
    stop = torch.tensor(backbone.chat.stop_ids, device=device)
    tokens = torch.full((count, max_new_tokens), pad, device=device)
    logprobs = torch.zeros(count, max_new_tokens, device=device)
    lengths = torch.zeros(count, dtype=torch.long, device=device)
    stopped = torch.zeros(count, dtype=torch.bool, device=device)
    give_back()
    rows = torch.arange(count, device=device)  # whose token each row of the decoder's batch is
    with backbone.roles.using(adapter):
        decoder = decoder_for(backbone, max_new_tokens)
        logits = decoder.prefill(*padded_left(prompts, pad, device), group_size)  # [b,V]
        passed = _Passed(decoder, prompts, group_size, max_new_tokens)
        for step in range(max_new_tokens):
            chosen, chosen_logprobs = draw(logits, temperature, uniform[rows, step])
            live = ~stopped[rows]
            # No boolean indexing here: a GPU would have to be waited for.
            tokens[rows, step] = torch.where(live, chosen, pad)
            logprobs[rows, step] = torch.where(live, chosen_logprobs, 0.0)
            lengths[rows] += live
            stopped[rows] |= torch.isin(chosen, stop)
            running, before = torch.stack([(~stopped[rows]).sum(), live.sum()]).tolist()
            if backbone.sharded:
                running = processes.anyone(running > 0)  # who is done goes on with the others
            if not running or step + 1 == max_new_tokens:
                break
            # A row stays for one step after its end, so that its last token passes by the boundary too.
            if 0 < before < (1 - decoder.leave_at) * len(rows):
                decoder.keep(live.nonzero().squeeze(1))
                rows, chosen = rows[live], chosen[live]
            logits = decoder.step(chosen)
            passed.note(rows, step, decoder.lower)
        if backbone.lower is not None and passed.wanted:
            decoder.step(chosen)
            passed.note(rows, step, decoder.lower)
            passed.hand_over(backbone.lower, tokens, lengths)
    del decoder, logits
    give_back()
    return tokens, logprobs, lengths, stopped.long()


def give_back() -> None:
    """Return freed memory to the system: of an update before sampling, and of the decoder's copy of the weights after
    it. glibc keeps the pages, and what comes next would need its own besides."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such call, nor need it
        ctypes.CDLL(None).malloc_trim(0)


class _Passed:
    """Hidden states at the boundary of the shared lower trunk, noted while sampling: later passes start from them."""

    def __init__(self, decoder: Decoder, prompts: Sequence[Sequence[int]], group_size: int, room: int) -> None:
        self.wanted = decoder.lower is not None
        self._prompts, self._group_size = prompts, group_size
        if decoder.lower is not None:
            self._read = decoder.lower  # [P,W,D], padded on the left
            size = decoder.lower.shape[-1]
            self._said = self._read.new_zeros(len(prompts) * group_size, room, size)  # [B,T,D]

    def note(self, rows: Tensor, step: int, lower: Tensor | None) -> None:
        """States [b,D] of the tokens that `rows` drew at `step`."""
        if lower is not None:
            self._said[rows, step] = lower

    def hand_over(self, trunk: LowerTrunk, tokens: Tensor, lengths: Tensor) -> None:
        """Let the trunk remember every sequence, prompt and completion."""
        for row, (ids, length) in enumerate(zip(tokens.tolist(), lengths.tolist(), strict=True)):
            prompt = self._prompts[row // self._group_size]
            states = [self._read[row // self._group_size, -len(prompt) :], self._said[row, :length]]
            trunk.remember([*prompt, *ids[:length]], torch.cat(states))
