"""Sampling by vLLM, another engine with its own kernels and rounding: an option for long completions on a GPU.

The adapter is written to a folder and loaded by vLLM before each rollout. What vLLM draws is not quite the policy's
own distribution, so the log-probs are recomputed and every advantage carries a truncated importance weight
(`rl.losses.truncated_importance`); the mismatch is logged.
"""

import importlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline import processes
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, engine_seed
from pipeline.lm.sources import ModelError

RANKS = (8, 16, 32, 64, 128, 256, 512)  # that vLLM has kernels for


class VllmSampler:
    """Takes the place of `lm.generate.generate`.

    Args:
        backbone: whose base vLLM loads a second time, from the same folder or hub id.
        memory: share of the GPU that vLLM may take, in (0, 1).
        max_length: longest prompt and completion together, in tokens.

    Raises:
        ModelError: vLLM isn't installed, the base is quantised, or several processes work together.
    """

    def __init__(self, backbone: Backbone, *, memory: float, max_length: int) -> None:
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if processes.world() > 1:
            raise ModelError("policy.sampler vllm: works in one process; take policy.sampler: own with several")
        if getattr(backbone.config, "quantization_config", None) is not None:
            raise ModelError("policy.sampler vllm: needs a base that isn't quantised; set model.quantization: none")
        assert backbone.lora is not None
        try:
            self._vllm: Any = importlib.import_module("vllm")
            self._request: Any = importlib.import_module("vllm.lora.request").LoRARequest
        except ImportError as error:
            raise ModelError(f"policy.sampler vllm: {error}; pip install 'align-pipeline[vllm]'") from None
        self._engine = self._vllm.LLM(
            model=backbone.config._name_or_path,
            dtype=str(backbone.dtype).removeprefix("torch."),
            enable_lora=True,
            max_loras=1,
            max_lora_rank=next(rank for rank in RANKS if rank >= backbone.lora.r),
            max_model_len=max_length,
            gpu_memory_utilization=memory,
            generation_config="vllm",  # not the model's own top-k or top-p: the pure softmax
            logprobs_mode="processed_logprobs",  # at the sampling temperature
        )
        self._folder = tempfile.TemporaryDirectory(prefix="align-vllm-")
        self._count = 0

    def __call__(
        self,
        backbone: Backbone,
        adapter: str | None,
        prompts: Sequence[Sequence[int]],
        *,
        group_size: int = 1,
        temperature: float = 1.0,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
    ) -> Completions:
        """Sample `group_size` completions for each prompt under `adapter`; see `lm.generate.generate`."""
        seed = engine_seed(generator)
        settings = self._vllm.SamplingParams(
            n=group_size,
            temperature=temperature,
            max_tokens=max_new_tokens,
            stop_token_ids=list(backbone.chat.stop_ids),
            logprobs=0,  # those of the drawn tokens alone
            detokenize=False,
            seed=seed,
        )
        outputs = self._engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            settings,
            lora_request=None if adapter is None else self._load(backbone, adapter),
            use_tqdm=False,
        )
        rows = [row for output in outputs for row in output.outputs]  # in the prompts' order, a group together
        drawn = [list(row.token_ids) for row in rows]
        logprobs = [
            [step[token].logprob for token, step in zip(ids, row.logprobs, strict=True)]
            for ids, row in zip(drawn, rows, strict=True)
        ]
        stopped = [row.finish_reason == "stop" for row in rows]
        return Completions.of(backbone, prompts, group_size, drawn, logprobs, stopped)

    def _load(self, backbone: Backbone, adapter: str) -> Any:
        """A request for the adapter as it is now. Each has a number of its own, or vLLM would keep the one before."""
        folder = Path(self._folder.name) / "adapter"
        shutil.rmtree(folder, ignore_errors=True)
        self._count += 1
        backbone.roles.save(adapter, folder)
        return self._request(f"{adapter}-{self._count}", self._count, str(folder))
