"""Snapshots of a running stage, from which the same command goes on as if nothing had happened.

RUN/STAGE/checkpoints/000012-policy/
  state.json           plain values, and where the tensors stand among them
  state.safetensors    the tensors
  hashes.json          SHA-256 of both

A snapshot is written into a hidden folder, flushed to disk, and renamed: it is there whole or not at all. The newest
are kept; one that is damaged is passed over for the one before it. Of several processes the first one reads and writes
them for all; each has random numbers of its own in them.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import processes
from pipeline.atomic import sync_folder, write_atomically
from pipeline.progress import say
from pipeline.rundir import RunError, StageDir
from pipeline.stopping import stop_requested

State = Mapping[str, Any]
PLAIN, TENSORS, HASHES = "state.json", "state.safetensors", "hashes.json"


class Checkpoints:
    """The snapshots of one stage. Opening them takes the stage back to the newest good one, logs included.

    Several things may be trained one after the other in a stage: each has snapshots under its own name.

    Args:
        out: the stage's folder.
        seconds: at least this long between two snapshots; 0 = after every step.
        keep: how many of each name stay.
        visible: say that the stage goes on.
    """

    def __init__(self, out: StageDir, *, seconds: float = 60.0, keep: int = 2, visible: bool = False) -> None:
        self._out, self._seconds, self._keep = out, seconds, keep
        self._folder = out.checkpoints
        self._serial = 0
        self._found = processes.told(self._open)  # the newest good one of each name
        self._spoke = time.monotonic()
        if self._found:
            seconds = max(content["position"]["seconds"] for content in self._found.values())
            say(f"{out.stage}: going on after {seconds:.0f} s of work", visible=visible)

    def _open(self) -> dict[str, dict[str, Any]]:
        """Read the newest good snapshot of each name, and leave the folder as the newest of all says it was."""
        found: dict[str, dict[str, Any]] = {}
        position = None
        for folder in sorted(self._folder.glob("[0-9]*"), reverse=True):
            name = folder.name.partition("-")[2]
            if name not in found and (content := self._read(folder)) is not None:
                position = position or content["position"]
                found[name] = content
        self._out.rewind(position)
        self._folder.mkdir(exist_ok=True)
        for unfinished in self._folder.glob(".*"):
            shutil.rmtree(unfinished)
        self._serial = max((int(folder.name.partition("-")[0]) for folder in self._folder.iterdir()), default=0)
        return found

    def latest(self, name: str) -> dict[str, Any] | None:
        """The state under `name` to go on from, random numbers of torch set as they were; None = begin.

        It is given away: asked again, there is none, for it may be as large as the model's optimiser.
        """
        content = self._found.pop(name, None)
        if content is None:
            return None
        states = content["random"]
        set_random_state(states[min(processes.rank(), len(states) - 1)])
        return content["state"]  # type: ignore[no-any-return]

    def step(self, name: str, state: Callable[[], State]) -> None:
        """After each step: write a snapshot when it is time.

        Raises:
            KeyboardInterrupt: somebody has asked to stop, whichever process heard it; the snapshot is written.
        """
        stopping = processes.anyone(stop_requested())
        if stopping or processes.anyone(processes.main() and time.monotonic() - self._spoke >= self._seconds):
            self.save(name, state())
        if stopping:
            processes.wait()  # a launcher ends all when the first one has ended, and that must not cut the snapshot
            raise KeyboardInterrupt

    def save(self, name: str, state: State) -> None:
        """Write a snapshot now, and drop the oldest of its name.

        Raises:
            RunError: it can't be written; what was written before is still there.
        """
        random = processes.each(random_state())
        if not processes.main():
            return
        self._serial += 1
        folder = self._folder / f"{self._serial:06d}-{name}"
        hidden = self._folder / f".{folder.name}"
        try:
            hidden.mkdir()
            content = {
                "fingerprint": self._out.fingerprint,
                "position": self._out.position(),
                "random": random,
                "state": state,
            }
            tensors: dict[str, Tensor] = {}
            text = json.dumps(_flatten(content, tensors))
            save_file(tensors, hidden / TENSORS)
            (hidden / PLAIN).write_text(text, encoding="utf-8")
            for part in (TENSORS, PLAIN):
                with open(hidden / part, "rb") as file:
                    os.fsync(file.fileno())
            hashes = {part: _sha256(hidden / part) for part in (TENSORS, PLAIN)}
            write_atomically(hidden / HASHES, json.dumps(hashes))
            sync_folder(hidden)
            hidden.rename(folder)
            sync_folder(self._folder)
        except Exception as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if isinstance(error, OSError) or "I/O error" in str(error):  # safetensors has an error of its own
                reason = getattr(error, "strerror", None) or error
                raise RunError(
                    f"{self._folder}: no checkpoint could be written: {reason}; those before it are good: make room "
                    "and run the same command to go on"
                ) from None
            raise
        for old in sorted(self._folder.glob(f"??????-{name}"))[: -self._keep]:
            gone = old.with_name(f".{old.name}")
            old.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        self._spoke = time.monotonic()

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """A snapshot's content; None where it is of other settings, or with a warning, not what was written."""
        try:
            for part, expected in json.loads((folder / HASHES).read_text(encoding="utf-8")).items():
                if _sha256(folder / part) != expected:
                    raise ValueError(f"{part} has changed")
            tensors = load_file(folder / TENSORS)
            content = _restore(json.loads((folder / PLAIN).read_text(encoding="utf-8")), tensors)
            if content["fingerprint"] != self._out.fingerprint:
                return None
            self._out.check(content["position"])
        except (OSError, ValueError, KeyError) as error:
            say(f"checkpoint {folder} is damaged ({error}); it is passed over for the one before it")
            return None
        return content  # type: ignore[no-any-return]


@torch.no_grad()
def overwrite(parameters: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copy kept values into parameters, in their order."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def random_state() -> dict[str, Any]:
    """The states of torch's own generators, of the CPU and of the GPU in use."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def set_random_state(state: State) -> None:
    """Put torch's generators back."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON that gives it back exactly; its tensors go into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"mapping": [[_flatten(key, tensors), _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(item, tensors) for item in value]}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "mapping":
        return {_restore(key, tensors): _restore(item, tensors) for key, item in content}
    items = (_restore(item, tensors) for item in content)
    return tuple(items) if kind == "tuple" else list(items)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
