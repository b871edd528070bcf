"""Who is who on one base: named roles, which one acts, which ones learn, their scalar heads, how they are stored.

What a role consists of besides its head is one of two kinds of `Weights`: a LoRA adapter on the frozen base
(`lm/adapters.py`), or a whole model of its own (`lm/whole.py`).
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.lm.sources import ModelError

HEAD_FILE = "head.safetensors"


class Weights(Protocol):
    """The weights of every role on one base. Nothing is active at first, and after roles came or went."""

    parameters: dict[str, list[nn.Parameter]]  # of each role

    def add(self, name: str) -> None:
        """A new role that answers as the base does."""
        ...

    def copy(self, source: str, target: str) -> None:
        """`target`, which exists, becomes what `source` is."""
        ...

    def remove(self, name: str) -> None:
        """Forget a role."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """A new role from a folder that `save` wrote. Raises ModelError where it doesn't fit."""
        ...

    def save(self, name: str, folder: Path) -> None:
        """Write a role as the libraries' own loaders want it."""
        ...

    def activate(self, name: str | None) -> None:
        """Let the base compute as a role, or (None) as itself."""
        ...

    def dropout(self) -> contextlib.AbstractContextManager[None]:
        """Dropout of the weights on, while the block runs."""
        ...


class Roles:
    """The roles on one base. One is active only inside `using(name)`; outside, the bare base answers."""

    def __init__(self, base: nn.Module, weights: Weights) -> None:
        self.heads = nn.ModuleDict()
        self.active: str | None = None
        self._base, self._weights = base, weights
        self._trainable: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._weights.parameters

    @property
    def names(self) -> list[str]:
        return list(self._weights.parameters)

    # ---- coming and going -----------------------------------------------------------------------------------

    def add(self, name: str, *, head: bool = False) -> None:
        """A new role that answers as the base does, with a fresh scalar head if it scores."""
        self._weights.add(name)
        self._activate(None)
        if head:
            self.add_head(name)

    def add_head(self, name: str) -> None:
        """A scalar head W ~ N(0, 1/√(d+1)), b = 0, in fp32 [Huang et al. 2024, N+ details of RLHF]."""
        size: Any = self._base.config.hidden_size  # type: ignore[union-attr]
        head = nn.Linear(size, 1, dtype=torch.float32, device=self._device)
        nn.init.normal_(head.weight, std=(size + 1) ** -0.5)
        nn.init.zeros_(head.bias)
        self.heads[name] = head.requires_grad_(name in self._trainable)

    def clone(self, source: str, target: str) -> None:
        """`target` starts as an exact copy of `source`, head included: KL(target ‖ source) = 0."""
        self.add(target, head=source in self.heads)
        self._weights.copy(source, target)
        if source in self.heads:
            self.heads[target].load_state_dict(self.heads[source].state_dict())

    def remove(self, name: str) -> None:
        """Forget a role and its head."""
        self._weights.remove(name)
        self._trainable.discard(name)
        if name in self.heads:
            del self.heads[name]
        self._activate(None)

    def load(self, name: str, folder: str | Path) -> None:
        """Load a role's folder (safetensors only), with its head when there is one.

        Raises:
            ModelError: it isn't there, was trained under another `lora` section, or its weights don't fit.
        """
        folder = Path(folder)
        self._weights.load(name, folder)
        self._activate(None)
        head = folder / HEAD_FILE
        if head.is_file():
            self.add_head(name)
            self.heads[name].load_state_dict(load_file(head, device=str(self._device)))

    def save(self, name: str, folder: str | Path) -> None:
        """An ordinary folder of PEFT's or transformers', the head beside it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._weights.save(name, folder)
        if name in self.heads:
            state: Mapping[str, Tensor] = self.heads[name].state_dict()
            save_file({key: value.detach().cpu() for key, value in state.items()}, folder / HEAD_FILE)

    # ---- which one acts, which ones learn -------------------------------------------------------------------

    def train_only(self, *names: str) -> list[nn.Parameter]:
        """Make exactly these roles (and their heads) trainable; return their parameters.

        The set stays as it is whichever role is active.
        """
        self._trainable = set(names)
        self._mark_trainable()
        return [p for name in names for p in self.parameters_of(name)]

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Weights of one role, its head's included."""
        return self._weights.parameters[name] + (list(self.heads[name].parameters()) if name in self.heads else [])

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Run with one role (None = the bare base); the one before is active again afterwards."""
        if name is not None and name not in self:
            raise ModelError(f"no adapter {name!r}; loaded: {', '.join(self.names) or 'none'}")
        before = self.active
        if name != before:
            self._activate(name)
        try:
            yield
        finally:
            if name != before:
                self._activate(before)

    def dropout(self) -> contextlib.AbstractContextManager[None]:
        """The adapters' dropout on, for supervised training steps; policy optimisation never uses it."""
        return self._weights.dropout()

    @property
    def _device(self) -> torch.device:
        return next(self._base.parameters()).device

    def _activate(self, name: str | None) -> None:
        self._weights.activate(name)
        self._mark_trainable()  # PEFT's own switching flips `requires_grad`
        self.active = name

    def _mark_trainable(self) -> None:
        for name in self.names:
            for parameter in self.parameters_of(name):
                parameter.requires_grad_(name in self._trainable)
