"""Named LoRA adapters on one base, with scalar heads: which one acts, which ones learn, how they are stored."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.lm.fused import fuse_lora
from pipeline.lm.sources import ModelError

WEIGHTS_FILE, HEAD_FILE = "adapter_model.safetensors", "head.safetensors"
# What must agree between a saved adapter and the config: PEFT's name → (ours, in words).
_SHAPE = {"r": ("r", "rank"), "lora_alpha": ("alpha", "alpha"), "layers_to_transform": ("layers", "layers")}


class Adapters:
    """The adapters of one frozen base. One is active only inside `using(name)`; outside, the bare base answers."""

    def __init__(self, base: nn.Module, lora: LoraConfig, *, fused: bool = True) -> None:
        self.heads = nn.ModuleDict()
        self.active: str | None = None
        self._base, self.lora, self._fused = base, lora, fused
        self._peft: PeftModel | None = None  # made with the first adapter
        self._layers: list[LoraLayer] = []
        self._weights: dict[str, list[nn.Parameter]] = {}  # LoRA weights of each adapter
        self._trainable: set[str] = set()
        self._settle()

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    @property
    def names(self) -> list[str]:
        return list(self._weights)

    # ---- coming and going -----------------------------------------------------------------------------------

    def add(self, name: str, *, head: bool = False) -> None:
        """A new adapter that changes nothing yet (B = 0), with a fresh scalar head if it scores."""
        if self._peft is None:
            self._peft = get_peft_model(self._base, self.lora, adapter_name=name)  # type: ignore[arg-type, assignment]
        else:
            self._peft.add_adapter(name, self.lora)
        self._take_stock()
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
        self._fill(target, get_peft_model_state_dict(self._peft, adapter_name=source))
        if source in self.heads:
            self.heads[target].load_state_dict(self.heads[source].state_dict())

    def remove(self, name: str) -> None:
        """Forget an adapter and its head."""
        assert self._peft is not None
        self._peft.delete_adapter(name)
        self._trainable.discard(name)
        if name in self.heads:
            del self.heads[name]
        self._take_stock()

    def load(self, name: str, folder: str | Path) -> None:
        """Load an adapter folder (safetensors only), with its head when there is one.

        Raises:
            ModelError: it isn't there, its rank, alpha or layers aren't the config's, or its weights don't fit.
        """
        folder = Path(folder)
        if not (folder / WEIGHTS_FILE).is_file():
            raise ModelError(f"{folder} has no {WEIGHTS_FILE}; adapters are loaded from safetensors alone")
        saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        for field, (name_in_config, word) in _SHAPE.items():
            asked = getattr(self.lora, field)
            if saved.get(field) != asked:
                raise ModelError(
                    f"{folder} has {word} {saved.get(field)}, the config says lora.{name_in_config} {asked}; "
                    "repeat the stages before this one, or set it back"
                )
        head = folder / HEAD_FILE
        self.add(name, head=head.is_file())
        self._fill(name, load_peft_weights(str(folder), device=str(self._device), use_safetensors=True))
        if head.is_file():
            self.heads[name].load_state_dict(load_file(head, device=str(self._device)))

    def save(self, name: str, folder: str | Path) -> None:
        """An ordinary PEFT adapter folder, the head beside it."""
        assert self._peft is not None
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
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
        if name in self.heads:
            state: Mapping[str, Tensor] = self.heads[name].state_dict()
            save_file({key: value.detach().cpu() for key, value in state.items()}, folder / HEAD_FILE)

    # ---- which one acts, which ones learn -------------------------------------------------------------------

    def train_only(self, *names: str) -> list[nn.Parameter]:
        """Make exactly these adapters (and their heads) trainable; return their parameters.

        The set stays as it is whichever adapter is active: PEFT's own switching also flips `requires_grad`,
        so it is put right after every switch.
        """
        self._trainable = set(names)
        self._mark_trainable()
        return [p for name in names for p in self.parameters_of(name)]

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """LoRA and head parameters of one adapter."""
        return self._weights[name] + (list(self.heads[name].parameters()) if name in self.heads else [])

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Run with one adapter (None = the bare base); the one before is active again afterwards."""
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

    @contextlib.contextmanager
    def dropout(self) -> Iterator[None]:
        """LoRA dropout on, for supervised training steps; policy optimisation never uses it."""
        for layer in self._layers:
            layer.lora_dropout.train()
        try:
            yield
        finally:
            for layer in self._layers:
                layer.lora_dropout.eval()

    # ---- bookkeeping ----------------------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return next(self._base.parameters()).device

    def _fill(self, name: str, weights: dict[str, Tensor]) -> None:
        outcome: Any = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
        if outcome.unexpected_keys:
            raise ModelError(f"adapter {name!r} doesn't fit this base: {outcome.unexpected_keys[:2]} …")

    def _take_stock(self) -> None:
        """List the LoRA layers and weights again after adapters came or went; none is active then."""
        assert self._peft is not None
        self._layers = [module for module in self._base.modules() if isinstance(module, LoraLayer)]
        if self._fused:
            for layer in self._layers:
                fuse_lora(layer)
        self._weights = {name: [] for name in self._peft.peft_config}
        for key, parameter in self._base.named_parameters():
            for name, weights in self._weights.items():
                if ".lora_" in key and f".{name}." in f"{key}.":
                    weights.append(parameter)
        self._settle()
        self._activate(None)

    def _settle(self) -> None:
        """Evaluation mode, where LoRA's dropout is off. New LoRA layers come in training mode."""
        self._base.eval()
        for module in self._base.modules():
            # In evaluation mode bitsandbytes packs 4-bit weights on a CPU for a kernel that has no backward pass.
            if type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes"):
                module.training = True

    def _activate(self, name: str | None) -> None:
        for layer in self._layers:
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter(name)
        self._mark_trainable()
        self.active = name

    def _mark_trainable(self) -> None:
        for name in self.names:
            for parameter in self.parameters_of(name):
                parameter.requires_grad_(name in self._trainable)
