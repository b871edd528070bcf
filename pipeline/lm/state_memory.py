"""Hidden states that are kept: the first ones in memory, and if asked, the others in a temporary file."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

Key = tuple[int, ...]


class StateMemory:
    """States by token ids, each kept as it was computed first.

    Those that come first stay. Who passes over many sequences in the same order again and again would find none of
    them if the latest drove out the oldest. And what is kept doesn't depend on what was asked for later: a run that
    goes on after a crash keeps the very same.

    Args:
        budget: bytes kept in memory; once a state doesn't fit, no later one is kept there.
        folder: where the others are written, to a file without a name that vanishes with the process; None = they are
            not kept.
    """

    def __init__(self, budget: int, folder: str | Path | None = None) -> None:
        self._budget, self._left, self._full = budget, budget, False
        self._near: dict[Key, Tensor] = {}
        self._far: dict[Key, tuple[int, torch.Size, torch.dtype, torch.device]] = {}  # where in the file
        self._file: IO[bytes] | None = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __contains__(self, key: object) -> bool:
        return key in self._near or key in self._far

    def __len__(self) -> int:
        return len(self._near) + len(self._far)

    def __getitem__(self, key: Key) -> Tensor:
        return self._near[key] if key in self._near else self._read(key)

    @property
    def full(self) -> bool:
        """Whether no further state would be kept, in memory or in a file."""
        return self._full and self._file is None

    def keep(self, key: Sequence[int], state: Tensor) -> None:
        """Store the states of one sequence, unless they are there or there is no room."""
        key = tuple(key)
        if key in self:
            return
        self._full = self._full or state.nbytes > self._left
        if not self._full:
            self._left -= state.nbytes
            self._near[key] = state
        elif self._file is not None:
            self._write(key, state)

    def clear(self) -> None:
        """Forget everything."""
        self._near.clear()
        self._far.clear()
        self._left, self._full = self._budget, False
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def _write(self, key: Key, state: Tensor) -> None:
        assert self._file is not None
        self._far[key] = (self._file.seek(0, os.SEEK_END), state.shape, state.dtype, state.device)
        self._file.write(state.contiguous().view(torch.uint8).cpu().numpy().tobytes())

    def _read(self, key: Key) -> Tensor:
        assert self._file is not None
        offset, shape, dtype, device = self._far[key]
        self._file.seek(offset)
        content = bytearray(self._file.read(shape.numel() * dtype.itemsize))
        return torch.frombuffer(content, dtype=dtype).view(shape).to(device)
