"""Roles as named LoRA adapters on one frozen base."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from pipeline.lm.fused import fuse_lora
from pipeline.lm.sources import ModelError

WEIGHTS_FILE = "adapter_model.safetensors"
# What must agree between a saved adapter and the config: PEFT's name → (ours, in words).
_SHAPE = {"r": ("r", "rank"), "lora_alpha": ("alpha", "alpha"), "layers_to_transform": ("layers", "layers")}


class AdapterWeights:
    """One LoRA adapter a role; see `roles.Weights`."""

    def __init__(self, base: nn.Module, lora: LoraConfig, *, fused: bool = True) -> None:
        self._base, self._lora, self._fused = base, lora, fused
        self._peft: PeftModel | None = None  # made with the first adapter
        self._layers: list[LoraLayer] = []
        self.parameters: dict[str, list[nn.Parameter]] = {}
        self._settle()

    def add(self, name: str) -> None:
        if self._peft is None:
            self._peft = get_peft_model(self._base, self._lora, adapter_name=name)  # type: ignore[arg-type, assignment]
        else:
            self._peft.add_adapter(name, self._lora)  # B = 0: it changes nothing yet
        self._take_stock()

    def copy(self, source: str, target: str) -> None:
        self._fill(target, get_peft_model_state_dict(self._peft, adapter_name=source))

    def remove(self, name: str) -> None:
        assert self._peft is not None
        self._peft.delete_adapter(name)
        self._take_stock()

    def load(self, name: str, folder: Path) -> None:
        if not (folder / WEIGHTS_FILE).is_file():
            raise ModelError(f"{folder} has no {WEIGHTS_FILE}; adapters are loaded from safetensors alone")
        saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        for field, (name_in_config, word) in _SHAPE.items():
            asked = getattr(self._lora, field)
            if saved.get(field) != asked:
                raise ModelError(
                    f"{folder} has {word} {saved.get(field)}, the config says lora.{name_in_config} {asked}; "
                    "repeat the stages before this one, or set it back"
                )
        self.add(name)
        device = next(self._base.parameters()).device
        self._fill(name, load_peft_weights(str(folder), device=str(device), use_safetensors=True))

    def save(self, name: str, folder: Path) -> None:
        """An ordinary PEFT adapter folder."""
        assert self._peft is not None
        weights = get_peft_model_state_dict(self._peft, adapter_name=name)
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in weights.items()},
            folder / WEIGHTS_FILE,
            metadata={"format": "pt"},
        )
        config: Any = self._peft.peft_config[name]
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # or the file would differ from run to run
        config.save_pretrained(str(folder))

    def activate(self, name: str | None) -> None:
        for layer in self._layers:
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter(name)

    @contextlib.contextmanager
    def dropout(self) -> Iterator[None]:
        for layer in self._layers:
            layer.lora_dropout.train()
        try:
            yield
        finally:
            for layer in self._layers:
                layer.lora_dropout.eval()

    def _fill(self, name: str, weights: dict[str, torch.Tensor]) -> None:
        outcome: Any = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
        if outcome.unexpected_keys:
            raise ModelError(f"adapter {name!r} doesn't fit this base: {outcome.unexpected_keys[:2]} …")

    def _take_stock(self) -> None:
        """List the LoRA layers and weights again after adapters came or went."""
        assert self._peft is not None
        self._layers = [module for module in self._base.modules() if isinstance(module, LoraLayer)]
        if self._fused:
            for layer in self._layers:
                fuse_lora(layer)
        self.parameters = {name: [] for name in self._peft.peft_config}
        for key, parameter in self._base.named_parameters():
            for name, weights in self.parameters.items():
                if ".lora_" in key and f".{name}." in f"{key}.":
                    weights.append(parameter)
        self._settle()

    def _settle(self) -> None:
        """Evaluation mode, where LoRA's dropout is off. New LoRA layers come in training mode."""
        self._base.eval()
        for module in self._base.modules():
            # In evaluation mode bitsandbytes packs 4-bit weights on a CPU for a kernel that has no backward pass.
            if type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes"):
                module.training = True
