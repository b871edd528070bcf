"""Sequences without padding, and what they have in common only once.

They stand one after the other where tokens are treated one by one (linear layers, norms and gates: nearly all of the
work), and side by side in attention only. A causal model's state at a token depends on what stands before it and on
nothing else, so a beginning that several sequences share, such as the prompt of a group of answers, is one for all.

transformers hands what we pass to its forward pass on to the attention function, so any architecture whose attention
can be exchanged can be packed; whether one really can is measured, not believed.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pipeline.lm.products import half_on_cpu, whole_rows

NAME = "align_packed"
NO_MASK = torch.empty(1, 1, 1, 1)  # four dimensions: transformers builds no mask of its own; nobody reads it
# What a model is held to that can be packed: two sequences with two tokens in common, and how far two ways may differ,
# as a share of the largest number; bf16 rounds by as much.
PROBE, ALIKE = [[0, 1, 2], [0, 1, 4, 5, 6]], 0.02


class Packing:
    """Where the tokens of b sequences stand in one row of M.

    Args:
        sequences: b rows of token ids, each at least one long.
        device: where the model is.
        multiple: M is made up to one of it, with tokens that nothing reads.

    Attributes:
        ids, positions: [M], each token and its position in its own sequence.
        places: [b,L], where in the row each sequence's token stands; 0 at padding.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], device: torch.device, multiple: int = 1) -> None:
        self.shape = len(sequences), max(len(sequence) for sequence in sequences)
        ids: list[int] = []
        positions: list[int] = []
        cells: list[int] = []  # a cell of [b,L] for each token
        places = [[0] * self.shape[1] for _ in sequences]
        before: Sequence[int] = ()
        at: list[int] = []
        # Sorted, each sequence stands beside the one it has most in common with.
        for row in sorted(range(len(sequences)), key=lambda row: list(sequences[row])):
            sequence = sequences[row]
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, sequence, strict=False)))
            fresh = range(shared, len(sequence))
            at = [*at[:shared], *range(len(ids), len(ids) + len(fresh))]
            ids += sequence[shared:]
            positions += fresh
            cells += [row * self.shape[1] + index for index in fresh]
            places[row][: len(sequence)] = at
            before = sequence
        for part in (ids, positions, cells):
            part += part[:1] * (-len(part) % multiple)
        self.ids, self.positions, self._cells = (torch.tensor(part, device=device) for part in (ids, positions, cells))
        self.places = torch.tensor(places, device=device)

    @property
    def options(self) -> dict[str, Any]:
        """What a trunk's forward pass is called with, besides tokens [1,M] or their embeddings."""
        return {"position_ids": self.positions[None], "attention_mask": NO_MASK, "packing": self, "use_cache": False}

    def spread(self, x: Tensor) -> Tensor:
        """[1,H,M,d] → [b,H,L,d]. Padding holds the first token: behind all real ones, where causal attention ends."""
        rows = x[0].transpose(0, 1).index_select(0, self.places.flatten())  # [b·L,H,d]
        return rows.view(*self.shape, *rows.shape[1:]).transpose(1, 2)

    def gather(self, x: Tensor) -> Tensor:
        """[b,H,L,d] → [1,M,H,d], as transformers wants it from attention."""
        return x.transpose(1, 2).flatten(0, 1).index_select(0, self._cells)[None]


def pack(sequences: Sequence[Sequence[int]], weight: Tensor) -> Packing:
    """Sequences for a model with such weights: where they are, in numbers of rows that multiply fast."""
    return Packing(sequences, weight.device, whole_rows(weight))


class States(NamedTuple):
    """Hidden states of packed sequences."""

    packed: Tensor  # [M,D]
    places: Tensor  # [b,L]

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[N,D]: of sequence `rows[n]` at its token `columns[n]`."""
        return self.packed.index_select(0, self.places[rows, columns])


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each packed sequence; without a packing, transformers' own."""
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    query, key, value = (packing.spread(part) for part in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    kind = query.dtype
    if half_on_cpu(query):  # torch's kernel is faster in fp32; backward, four times as fast
        query, key, value = (part.float() for part in (query, key, value))
    out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    return packing.gather(out.to(kind)), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def full_attention(config: Any) -> bool:
    """Every layer sees all that stands before a token, however far."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None


def enable(base: Any) -> bool:
    """Let a model take packed sequences, if it can: two of them must give packed what each gives alone."""
    if not full_attention(base.config):
        return False
    before = base.config._attn_implementation
    try:
        base.set_attn_implementation(NAME)
        if _agrees(base.base_model):
            return True
    except (TypeError, ValueError):
        pass  # it knows no other attention than its own, or takes nothing that it doesn't know
    base.set_attn_implementation(before)
    return False


@torch.no_grad()
def _agrees(trunk: nn.Module) -> bool:
    device = next(trunk.parameters()).device
    packing = Packing(PROBE, device)
    packed = trunk(input_ids=packing.ids[None], **packing.options).last_hidden_state[0]
    for row, ids in enumerate(PROBE):
        alone = trunk(input_ids=torch.tensor([ids], device=device), use_cache=False).last_hidden_state[0]
        found = packed[packing.places[row, : len(ids)]]
        if (found - alone).abs().max() > ALIKE * alone.abs().max():
            return False
    return True
