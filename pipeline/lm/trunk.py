"""The shared lower trunk: below the first adapted layer, every role is the same frozen function of the tokens.

With adapters on the upper layers only (`lora.layers: upper`), the hidden states at the boundary are computed once per
sequence and kept; the passes of reference, reward, critic and policy, of all epochs, run the upper layers alone, and
the backward pass ends at the boundary. Exact: the same operations in the same order.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.lm.packing import ALIKE, PROBE, Packing, pack
from pipeline.lm.state_memory import StateMemory


class LowerTrunk:
    """Boundary states of sequences, computed under no adapter and remembered.

    Args:
        trunk: a decoder with `embed_tokens`, `layers` and a final `norm`.
        boundary: layers below this one carry no adapter.
        memory: where the states [length,D] of a sequence are kept.
    """

    def __init__(self, trunk: Any, boundary: int, memory: StateMemory) -> None:
        self._trunk, self._boundary, self._memory = trunk, boundary, memory

    @staticmethod
    def supports(trunk: Any) -> bool:
        """Decoders (that can be packed) with the parts that are exchanged here."""
        return all(hasattr(trunk, name) for name in ("embed_tokens", "layers", "norm"))

    @torch.no_grad()
    def agrees(self) -> bool:
        """Whether the two halves give what the whole gives. Where a model scales what is handed in as embeddings
        (Granite) they don't: boundary states would be scaled too."""
        packing = pack(PROBE, self._trunk.embed_tokens.weight)
        whole = self._trunk(input_ids=packing.ids[None], **packing.options).last_hidden_state[0]
        halves = self.upper(self._compute(PROBE), packing)
        halves, whole = halves[packing.places], whole[packing.places]
        return bool((halves - whole).abs().max() <= ALIKE * whole.abs().max())

    @torch.no_grad()
    def states(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Hidden states [length,D] at the boundary, of each sequence."""
        keys = [tuple(sequence) for sequence in sequences]
        missing = [key for key in dict.fromkeys(keys) if key not in self._memory]
        fresh = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        found = [fresh[key] if key in fresh else self._memory[key] for key in keys]
        for key, state in fresh.items():
            self._memory.keep(key, state)
        return found

    def _compute(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        packing = pack(sequences, self._trunk.embed_tokens.weight)
        with self._only(slice(0, self._boundary), nn.Identity()):
            hidden = self._trunk(input_ids=packing.ids[None], **packing.options).last_hidden_state[0]
        return [hidden[places[: len(ids)]] for places, ids in zip(packing.places, sequences, strict=True)]

    def upper(self, states: Sequence[Tensor], packing: Packing) -> Tensor:
        """Final hidden states [M,D] of packed sequences from their boundary states, under the active adapter."""
        packed = states[0].new_zeros(len(packing.ids), states[0].shape[-1])
        for places, state in zip(packing.places, states, strict=True):
            packed[places[: len(state)]] = state
        with self._only(slice(self._boundary, None), self._trunk.norm):
            out = self._trunk(inputs_embeds=packed[None], **packing.options)
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    @property
    def boundary(self) -> int:
        """The first layer that may carry an adapter."""
        return self._boundary

    @property
    def full(self) -> bool:
        """Whether nothing more would be kept."""
        return self._memory.full

    def remember(self, sequence: Sequence[int], states: Tensor) -> None:
        """Keep states [length,D] that somebody else computed: sampling passes by the boundary anyway."""
        self._memory.keep(sequence, states)

    def forget(self) -> None:
        """Drop what is kept; the sequences won't come again."""
        self._memory.clear()

    @contextmanager
    def _only(self, part: slice, norm: nn.Module) -> Iterator[None]:
        """The trunk with some of its layers; whole again afterwards."""
        layers, last = self._trunk.layers, self._trunk.norm
        self._trunk.layers, self._trunk.norm = nn.ModuleList(list(layers)[part]), norm
        try:
            yield
        finally:
            self._trunk.layers, self._trunk.norm = layers, last
