"""Roles as whole models: every weight is a role's own (full fine-tuning).

The base's modules stay; what changes hands are their parameters, a pointer each. So all that works on the backbone
works on a whole role, and costs one copy of the model a role.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pipeline.lm.sources import ModelError


class WholeWeights:
    """One copy of every parameter a role; see `roles.Weights`. A weight that two modules share stays shared."""

    def __init__(self, base: Any) -> None:
        self._base = base.eval()
        self._active: str | None = None
        self._own: list[nn.Parameter] = list(base.parameters())
        number = {id(parameter): index for index, parameter in enumerate(self._own)}
        self._places: list[tuple[nn.Module, str, int]] = [
            (module, key, number[id(parameter)])
            for module in base.modules()
            for key, parameter in module._parameters.items()
            if parameter is not None
        ]
        self.parameters: dict[str, list[nn.Parameter]] = {}

    def add(self, name: str) -> None:
        self.parameters[name] = [nn.Parameter(p.detach().clone(), requires_grad=False) for p in self._own]

    def copy(self, source: str, target: str) -> None:
        with torch.no_grad():
            for theirs, ours in zip(self.parameters[source], self.parameters[target], strict=True):
                ours.copy_(theirs)

    def remove(self, name: str) -> None:
        del self.parameters[name]

    def load(self, name: str, folder: Path) -> None:
        if not any(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
            raise ModelError(f"{folder} isn't a whole model in safetensors, which lora: null asks for")
        dtype = self._own[0].dtype
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        found = list(model.parameters())
        if [p.shape for p in found] != [p.shape for p in self._own]:
            raise ModelError(f"{folder} holds another architecture than the base")
        device = self._own[0].device
        self.parameters[name] = [nn.Parameter(p.detach().to(device), requires_grad=False) for p in found]

    def save(self, name: str, folder: Path) -> None:
        """An ordinary folder of transformers'."""
        before = self._active
        self.activate(name)
        try:
            self._base.save_pretrained(folder)
        finally:
            self.activate(before)

    def activate(self, name: str | None) -> None:
        chosen: Sequence[nn.Parameter] = self._own if name is None else self.parameters[name]
        for module, key, index in self._places:
            module._parameters[key] = chosen[index]
        self._active = name

    def dropout(self) -> contextlib.AbstractContextManager[None]:
        """None is left in the base: it would part sampling from training."""
        return contextlib.nullcontext()
