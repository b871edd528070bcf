"""One frozen base model; every role is a named LoRA adapter on it (or a whole model of its own), with a scalar head
where it scores.

`states` is the way in: it runs the trunk under a named role (or none) over packed sequences. `hidden` is its plain
twin over right-padded ids, where padding stands after the real tokens and attention is causal, so that it can't reach
them and no attention mask is needed.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from pipeline import processes
from pipeline.lm import sharding
from pipeline.lm.adapters import AdapterWeights
from pipeline.lm.chat import ChatFormat
from pipeline.lm.fused import fuse_layers, in_family, widen
from pipeline.lm.logprobs import TokenStats, head_logits, token_logprobs
from pipeline.lm.options import (
    choose_device,
    choose_dtype,
    disable_dropout,
    load_chat,
    lora_config,
    quantization_config,
    require_text_only,
    unreachable,
)
from pipeline.lm.packing import States, enable, pack
from pipeline.lm.products import half_on_cpu, hasten
from pipeline.lm.roles import Roles
from pipeline.lm.sources import ModelError, resolve
from pipeline.lm.state_memory import StateMemory
from pipeline.lm.trunk import LowerTrunk
from pipeline.lm.whole import WholeWeights


class Backbone(nn.Module):
    """The base with its adapters and heads, and every way through it."""

    def __init__(
        self,
        base: nn.Module,
        chat: ChatFormat,
        *,
        source: str,
        lora: LoraConfig | None,
        fast: bool = True,
        states_mb: int = 512,
        states_dir: str | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        base.requires_grad_(False)
        disable_dropout(base)
        if fast and lora is None:
            hasten(base.base_model)
        elif fast:  # fused layers train no base weight
            fuse_layers(base.base_model)
        self.chat, self.source, self.fast, self.lora = chat, source, fast, lora
        self.sharded = sharded  # then processes must meet in every layer: no states are kept, no weights copied
        self._base = base
        self.roles = Roles(base, WholeWeights(base) if lora is None else AdapterWeights(base, lora, fused=fast))
        self.heads = self.roles.heads
        self.packs = fast and enable(base)
        self._wide_head: Tensor | None = None
        head: Any = base.get_output_embeddings()  # type: ignore[operator]
        if lora is not None and half_on_cpu(head.weight):
            self._wide_head = head.weight.detach().float()
            if self.packs and in_family(base.config):
                widen(base)
        self._checkpointed: list[nn.Module] = []  # layers that recompute their activations
        self.lower: LowerTrunk | None = None
        adapted: Any = None if lora is None else lora.layers_to_transform
        first = 0 if adapted is None else min(adapted)
        if first > 0 and self.packs and not sharded and LowerTrunk.supports(self.trunk):
            lower = LowerTrunk(self.trunk, first, StateMemory(states_mb * 2**20, states_dir))
            self.lower = lower if lower.agrees() else None

    @classmethod
    def load(
        cls,
        name: str,
        *,
        lora: Mapping[str, Any] | None,
        device: str = "auto",
        dtype: str = "auto",
        matmul: str = "highest",
        quantization: str = "none",
        chat_template: str | None = None,
        sha256: str | None = None,
        cache_dir: str | Path = ".cache/models",
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        fast: bool = True,
    ) -> "Backbone":
        """Load the base once. `lora` has the keys of config.LoraSection; None gives every role all weights of its own.
        `matmul` holds for the whole process.

        Raises:
            ModelError: not found, hub unreachable, device absent, a model that reads more than text, architecture
                whose head can't be reproduced.
        """
        torch.set_float32_matmul_precision(matmul)
        where = choose_device(device)
        with processes.one_by_one():
            source = resolve(name, sha256=sha256, cache_dir=cache_dir)
        options: dict[str, Any] = {
            "dtype": choose_dtype(dtype, where),
            "trust_remote_code": trust_remote_code,
        }
        if quantization != "none":
            options["quantization_config"] = quantization_config(quantization, options["dtype"])
            options["device_map"] = {"": where}
        try:
            chat = load_chat(source, template=chat_template, trust_remote_code=trust_remote_code)
            base: Any = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **options)
        except (OSError, ConnectionError) as error:
            raise ModelError(unreachable(name, error)) from None
        require_text_only(base.config)
        if sharding.wanted():
            if lora is None:
                raise ModelError(
                    "a base in pieces (FSDP, ZeRO-3) carries adapters only; give lora a section, or launch with DDP"
                )
            sharding.shard(base, where)
        elif quantization == "none":
            base.to(where)
        backbone = cls(
            base,
            chat,
            source=name,
            lora=None if lora is None else lora_config(base, lora),
            fast=fast,
            sharded=sharding.wanted(),
            **{key: value for key, value in (lora or {}).items() if key in ("states_mb", "states_dir")},
        )
        if gradient_checkpointing:
            backbone.checkpoint_activations()
        backbone.check_head()
        return backbone

    @property
    def device(self) -> torch.device:
        return next(self._base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self._embedding.dtype

    @property
    def _embedding(self) -> Tensor:
        return self._base.get_input_embeddings().weight  # type: ignore[no-any-return, operator, union-attr]

    @property
    def base(self) -> Any:
        """The model that carries the roles, as transformers has it."""
        return self._base

    @property
    def config(self) -> Any:
        return self._base.config

    def save(self, name: str, folder: str | Path, *, role: Mapping[str, Any] | None = None) -> None:
        """Write an adapter's folder: PEFT's files, the head, the tokenizer with its template, the contract that goes
        with it, and `role` as JSON. Of several processes the first one writes."""
        if not processes.main():
            return
        self.roles.save(name, folder)
        self.chat.save(Path(folder))
        if role is not None:
            (Path(folder) / "role.json").write_text(json.dumps(role, indent=2) + "\n", encoding="utf-8")

    def restore(self, name: str, folder: str | Path) -> None:
        """Load an adapter that `save` wrote.

        Raises:
            TemplateError: it was trained on another template, other special tokens or another tokenizer.
            ModelError: its shape isn't the config's, or its weights don't fit the base.
        """
        self.chat.require(Path(folder))
        self.roles.load(name, folder)

    # ---- forward --------------------------------------------------------------------------------------------

    @property
    def trunk(self) -> Any:
        """The base without its output head; it runs under whichever adapter is active."""
        return self._base.base_model

    def hidden(self, adapter: str | None, ids: Tensor) -> Tensor:
        """Final hidden states [b,L,D] of right-padded `ids` [b,L] under `adapter`."""
        with self.roles.using(adapter), self._recomputing():
            return self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def states(self, adapter: str | None, sequences: Sequence[Sequence[int]]) -> States:
        """Final hidden states of sequences under `adapter`; the lower trunk's share is remembered."""
        if not self.packs:
            padded = self.hidden(adapter, self.pad(sequences))
            shape = padded.shape[:2]
            return States(padded.flatten(0, 1), torch.arange(shape.numel(), device=self.device).view(shape))
        packing = pack(sequences, self._embedding)
        with self.roles.using(adapter), self._recomputing():
            if self.lower is not None:
                hidden = self.lower.upper(self.lower.states(sequences), packing)
            else:
                hidden = self.trunk(input_ids=packing.ids[None], **packing.options).last_hidden_state[0]
        return States(hidden, packing.places)

    @property
    def head_weight(self) -> Tensor:
        """[V,D] of the active role: the base's, unless roles are whole models. Of a frozen half-precision base on a CPU
        a copy in fp32: logits that are rounded to bf16 are off by hundredths of a nat, and cost four times as much."""
        if self._wide_head is not None:
            return self._wide_head
        return self._base.get_output_embeddings().weight  # type: ignore[no-any-return, operator, union-attr]

    @property
    def head_bias(self) -> Tensor | None:
        """[V]; few heads have one (Phi's has)."""
        bias: Tensor | None = getattr(self._base.get_output_embeddings(), "bias", None)  # type: ignore[operator]
        return bias if bias is None else bias.to(self.head_weight.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits of the active role in fp32, for a few positions [...,D]; for many, use `logprobs`."""
        logits = head_logits(hidden, self.head_weight, self.head_bias)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap is not None else logits

    @property
    def softcap(self) -> float | None:
        return getattr(self.config, "final_logit_softcapping", None)

    def logprobs(
        self,
        name: str | None,
        hidden: Tensor,
        targets: Tensor,
        *,
        temperature: float = 1.0,
        entropy_gradient: bool = False,
    ) -> TokenStats:
        """log π of `targets` [N] under `name` at its hidden states [N,D], in chunks."""
        # An adapter leaves the head as it is; only a whole role has one of its own, and that costs a switch.
        with self.roles.using(name) if self.lora is None else contextlib.nullcontext():
            weight, bias = self.head_weight, self.head_bias
        return token_logprobs(
            hidden,
            weight,
            targets,
            bias=bias,
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
            return contextlib.nullcontext(), self.roles.using(self.roles.active)

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
