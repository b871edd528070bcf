"""One frozen base model; every role is a named LoRA adapter on it, with a scalar head where it scores.

`hidden` is the one way in: it runs the trunk under a named adapter (or none) over right-padded sequences. Padding
stands after the real tokens and attention is causal, so it can't reach them and no attention mask is needed.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.lm.chat import ChatFormat
from pipeline.lm.fused import fuse
from pipeline.lm.logprobs import TokenStats, head_logits, token_logprobs
from pipeline.lm.options import (
    adapted_layers,
    choose_device,
    choose_dtype,
    disable_dropout,
    linear_names,
    quantization_config,
    stop_ids,
    unreachable,
)
from pipeline.lm.sources import ModelError, resolve
from pipeline.lm.trunk import LowerTrunk

HEAD_FILE = "head.safetensors"
# What must agree between a saved adapter and the config: PEFT's name → (ours, in words).
_SHAPE = {"r": ("r", "rank"), "lora_alpha": ("alpha", "alpha"), "layers_to_transform": ("layers", "layers")}


class Backbone(nn.Module):
    """The base, its adapters and heads. Adapters are active only inside `using(name)`."""

    def __init__(self, base: nn.Module, chat: ChatFormat, *, source: str, lora: LoraConfig) -> None:
        super().__init__()
        base.requires_grad_(False)
        disable_dropout(base)
        self.chat, self.source, self._lora = chat, source, lora
        self._base = base
        self._peft: PeftModel | None = None  # made with the first adapter
        self._trainable: set[str] = set()
        self._active: str | None = None
        self._layers: list[LoraLayer] = []
        self._checkpointed: list[nn.Module] = []  # layers that recompute their activations
        self._weights: dict[str, list[nn.Parameter]] = {}  # LoRA weights of each adapter
        self.heads = nn.ModuleDict()
        self.lower: LowerTrunk | None = None
        adapted: Any = lora.layers_to_transform
        first = 0 if adapted is None else min(adapted)
        if first > 0 and LowerTrunk.supports(self.trunk):
            self.lower = LowerTrunk(self.trunk, first)
        self._settle()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        lora: Mapping[str, Any],
        device: str = "auto",
        dtype: str = "auto",
        quantization: str = "none",
        chat_template: str | None = None,
        sha256: str | None = None,
        cache_dir: str | Path = ".cache/models",
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
    ) -> "Backbone":
        """Load the base once. `lora` has r, alpha, dropout, targets (see config.LoraSection).

        Raises:
            ModelError: not found, hub unreachable, device absent, architecture whose head can't be reproduced.
        """
        where = choose_device(device)
        source = resolve(name, sha256=sha256, cache_dir=cache_dir)
        options: dict[str, Any] = {
            "dtype": choose_dtype(dtype, where),
            "trust_remote_code": trust_remote_code,
        }
        if quantization != "none":
            options["quantization_config"] = quantization_config(quantization, options["dtype"])
            options["device_map"] = {"": where}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
            base: Any = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **options)
        except (OSError, ConnectionError) as error:
            raise ModelError(unreachable(name, error)) from None
        chat = ChatFormat(tokenizer, template=chat_template, stop_ids=stop_ids(base))
        layers = adapted_layers(lora["layers"], base.config.num_hidden_layers)
        config = LoraConfig(
            r=lora["r"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=lora["targets"] if layers is None else linear_names(base, lora["targets"]),
            layers_to_transform=layers,
            task_type="CAUSAL_LM",
        )
        backbone = cls(base if quantization != "none" else base.to(where), chat, source=name, lora=config)
        if gradient_checkpointing:
            backbone.checkpoint_activations()
        backbone.check_head()
        return backbone

    @property
    def device(self) -> torch.device:
        return next(self._base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self._base.get_input_embeddings().weight.dtype  # type: ignore[no-any-return, operator, union-attr]

    @property
    def config(self) -> Any:
        return self._base.config

    # ---- adapters -------------------------------------------------------------------------------------------

    @property
    def adapters(self) -> list[str]:
        return list(self._peft.peft_config) if self._peft is not None else []

    def add_adapter(self, name: str, *, head: bool = False) -> None:
        """A new adapter that changes nothing yet (B = 0), with a fresh scalar head if it scores."""
        if self._peft is None:
            self._peft = get_peft_model(self._base, self._lora, adapter_name=name)
        else:
            self._peft.add_adapter(name, self._lora)
        self._take_stock()
        if head:
            self.add_head(name)

    def add_head(self, name: str) -> None:
        """A scalar head W ~ N(0, 1/√(d+1)), b = 0, in fp32 [Huang et al. 2024, N+ details of RLHF]."""
        head = nn.Linear(self.config.hidden_size, 1, dtype=torch.float32, device=self.device)
        nn.init.normal_(head.weight, std=(self.config.hidden_size + 1) ** -0.5)
        nn.init.zeros_(head.bias)
        self.heads[name] = head.requires_grad_(name in self._trainable)

    def clone_adapter(self, source: str, target: str) -> None:
        """`target` starts as an exact copy of `source`, head included: KL(target ‖ source) = 0."""
        self.add_adapter(target, head=source in self.heads)
        self._peft_load(target, get_peft_model_state_dict(self._peft, adapter_name=source))
        if source in self.heads:
            self.heads[target].load_state_dict(self.heads[source].state_dict())

    def load_adapter(self, name: str, folder: str | Path) -> None:
        """Load an adapter folder (safetensors only), with its head when there is one."""
        folder = Path(folder)
        saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        asked = {
            "r": self._lora.r,
            "lora_alpha": self._lora.lora_alpha,
            "layers_to_transform": self._lora.layers_to_transform,
        }
        for field, (name_in_config, word) in _SHAPE.items():
            if saved.get(field) != asked[field]:
                raise ModelError(
                    f"{folder} has {word} {saved.get(field)}, the config says lora.{name_in_config} {asked[field]}; "
                    "repeat the stages before this one, or set it back"
                )
        head = folder / HEAD_FILE
        self.add_adapter(name, head=head.is_file())
        self._peft_load(name, load_peft_weights(str(folder), device=str(self.device), use_safetensors=True))
        if head.is_file():
            self.heads[name].load_state_dict(load_file(head, device=str(self.device)))

    def save_adapter(self, name: str, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """An ordinary PEFT adapter folder; the head, the tokenizer with its template and `extra` stand beside it."""
        assert self._peft is not None
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = get_peft_model_state_dict(self._peft, adapter_name=name)
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in weights.items()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        self._peft.peft_config[name].save_pretrained(str(folder))
        self.chat.tokenizer.save_pretrained(folder)
        if name in self.heads:
            save_file(
                {key: value.detach().cpu() for key, value in self.heads[name].state_dict().items()},
                folder / HEAD_FILE,
            )
        if extra is not None:
            (folder / "role.json").write_text(json.dumps(extra, indent=2) + "\n", encoding="utf-8")

    def delete_adapter(self, name: str) -> None:
        """Forget an adapter and its head."""
        assert self._peft is not None
        self._peft.delete_adapter(name)
        self._trainable.discard(name)
        if name in self.heads:
            del self.heads[name]
        self._take_stock()

    def _take_stock(self) -> None:
        """List the LoRA layers and weights again after adapters came or went; none is active then."""
        self._layers = [module for module in self._base.modules() if isinstance(module, LoraLayer)]
        for layer in self._layers:
            fuse(layer)
        self._weights = {name: [] for name in self.adapters}
        for key, parameter in self._base.named_parameters():
            for name in self.adapters:
                if ".lora_" in key and f".{name}." in f"{key}.":
                    self._weights[name].append(parameter)
        self._settle()
        self._activate(None)

    def _settle(self) -> None:
        """Evaluation mode, where LoRA's dropout is off. New LoRA layers come in training mode."""
        self.eval()
        for module in self._base.modules():
            # In evaluation mode bitsandbytes packs 4-bit weights on a CPU for a kernel that has no backward pass.
            if type(module).__name__ == "Linear4bit" and type(module).__module__.startswith("bitsandbytes"):
                module.training = True

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

    def _peft_load(self, name: str, weights: dict[str, Tensor]) -> None:
        outcome: Any = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
        if outcome.unexpected_keys:
            raise ModelError(f"adapter {name!r} doesn't fit this base: {outcome.unexpected_keys[:2]} …")

    # ---- which adapter acts, which one learns ---------------------------------------------------------------

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

    def _mark_trainable(self) -> None:
        for name in self.adapters:
            for parameter in self.parameters_of(name):
                parameter.requires_grad_(name in self._trainable)

    def _activate(self, name: str | None) -> None:
        for layer in self._layers:
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter(name)
        self._mark_trainable()
        self._active = name

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Run with one adapter (None = the bare base); the one before is active again afterwards."""
        if name is not None and name not in self.adapters:
            raise ModelError(f"no adapter {name!r}; loaded: {', '.join(self.adapters) or 'none'}")
        before = self._active
        if name != before:
            self._activate(name)
        try:
            yield
        finally:
            if name != before:
                self._activate(before)

    # ---- forward --------------------------------------------------------------------------------------------

    @property
    def trunk(self) -> Any:
        """The base without its output head; it runs under whichever adapter is active."""
        return self._base.base_model

    def hidden(self, adapter: str | None, ids: Tensor) -> Tensor:
        """Final hidden states [b,L,D] of right-padded `ids` [b,L] under `adapter`."""
        with self.using(adapter), self._recomputing():
            return self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def hidden_of(self, adapter: str | None, sequences: Sequence[Sequence[int]]) -> Tensor:
        """`hidden` of right-padded sequences; the lower trunk's share is remembered where adapters leave it alone."""
        if self.lower is None:
            return self.hidden(adapter, self.pad(sequences))
        with self.using(adapter), self._recomputing():
            return self.lower.upper(self.lower.states(sequences, self.pad))

    @property
    def head_weight(self) -> Tensor:
        return self._base.get_output_embeddings().weight  # type: ignore[no-any-return, operator, union-attr]

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits in fp32 for a few positions [...,D]; for many, use `token_logprobs`."""
        logits = head_logits(hidden, self.head_weight)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap is not None else logits

    @property
    def softcap(self) -> float | None:
        return getattr(self.config, "final_logit_softcapping", None)

    def logprobs(
        self, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0, entropy_gradient: bool = False
    ) -> TokenStats:
        """log π of `targets` [N] at hidden states [N,D], in chunks."""
        return token_logprobs(
            hidden,
            self.head_weight,
            targets,
            temperature=temperature,
            softcap=self.softcap,
            entropy_gradient=entropy_gradient,
        )

    def score(self, name: str, hidden: Tensor) -> Tensor:
        """The scalar head of `name` over hidden states [...,D] → [...], in fp32."""
        return self.heads[name](hidden.float()).squeeze(-1)  # type: ignore[no-any-return]

    def pad(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Right-padded ids [b,L] on the model's device."""
        rows = [torch.tensor(row, dtype=torch.long) for row in sequences]
        return pad_sequence(rows, batch_first=True, padding_value=self.chat.tokenizer.pad_token_id).to(self.device)

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass, each under the adapter that its forward pass used."""

        def contexts() -> tuple[Any, Any]:
            return contextlib.nullcontext(), self.using(self._active)

        self._base.gradient_checkpointing_enable(  # type: ignore[operator, union-attr]
            gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": contexts}
        )
        self._checkpointed = [m for m in self._base.modules() if getattr(m, "gradient_checkpointing", False)]

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        """transformers checkpoints in training mode only, and drops the KV cache there: so it is on for passes with
        gradient alone, and for the layers that checkpoint alone."""
        for module in self._checkpointed:
            module.training = torch.is_grad_enabled()
        try:
            yield
        finally:
            for module in self._checkpointed:
                module.training = False

    @torch.no_grad()
    def check_head(self) -> None:
        """Compare `logits` with the model's own on four tokens: some architectures scale or shift theirs."""
        ids = self.pad([self.chat.stop_ids[:1] * 4])
        theirs = self._base(input_ids=ids, use_cache=False).logits.float()
        ours = self.logits(self.hidden(None, ids))
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * theirs.abs().max().item()):
            raise ModelError(f"{self.source}: this architecture's output head isn't a plain projection; not supported")
