"""Hidden states that are kept: the latest in memory, and if asked, the others in a temporary file."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

Key = tuple[int, ...]


class StateMemory:
    """States by token ids. A sequence's states never change, so what stands in the file is never written again.

    Args:
        budget: bytes kept in memory; the least recently stored leave first.
        folder: where those that leave are written, to a file without a name that vanishes with the process; None =
            they are forgotten.
    """

    def __init__(self, budget: int, folder: str | Path | None = None) -> None:
        self._budget, self._bytes = budget, 0
        self._near: OrderedDict[Key, Tensor] = OrderedDict()
        self._far: dict[Key, tuple[int, torch.Size, torch.dtype, torch.device]] = {}  # where in the file
        self._file: IO[bytes] | None = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __contains__(self, key: object) -> bool:
        return key in self._near or key in self._far

    def __len__(self) -> int:
        return len(self._near.keys() | self._far.keys())

    def __getitem__(self, key: Key) -> Tensor:
        return self._near[key] if key in self._near else self._read(key)

    def keep(self, key: Sequence[int], state: Tensor) -> None:
        """Store the states of one sequence."""
        key = tuple(key)
        before = self._near.pop(key, None)
        self._bytes += state.nbytes - (0 if before is None else before.nbytes)
        self._near[key] = state
        while self._bytes > self._budget:
            old, leaving = self._near.popitem(last=False)
            self._bytes -= leaving.nbytes
            if self._file is not None and old not in self._far:
                self._write(old, leaving)

    def clear(self) -> None:
        """Forget everything."""
        self._near.clear()
        self._far.clear()
        self._bytes = 0
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
