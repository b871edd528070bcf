"""transformers' continuous batching as the sampler: keys and values in pages, a finished row's place is taken at once.

The engine runs the backbone itself, under the role that acts, so nothing is loaded twice. It draws with torch's global
generator, seeded here for each call; what it computes together depends on its scheduler, so the last digits do, too.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers import GenerationConfig

from pipeline import processes
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions, engine_seed
from pipeline.lm.sources import ModelError

PAGE = 256  # tokens; what every attention kernel takes
TOKENS = 2048  # most that are computed together


class ContinuousSampler:
    """Draws completions as `lm.generate.generate` does, by transformers' `generate_batch`.

    Raises:
        ModelError: there are several processes, or transformers is too old or can't page this model's attention.
    """

    def __init__(self, backbone: Backbone) -> None:
        if processes.world() > 1:
            raise ModelError("policy.sampler transformers: works in one process; use own with several")
        self._batching: Any = getattr(transformers, "ContinuousBatchingConfig", None)
        if self._batching is None:
            raise ModelError("policy.sampler transformers: it has no continuous batching in this version; use own")

    @torch.no_grad()
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
        device, seed = backbone.device, engine_seed(generator)
        pages = math.ceil((max(map(len, prompts)) + max_new_tokens) / PAGE) * len(prompts) * group_size
        settings = {
            "generation_config": self._drawing(backbone, group_size, temperature, max_new_tokens),
            "continuous_batching_config": self._batching(
                page_size=PAGE, num_blocks=pages, max_batch_tokens=TOKENS, return_logprobs=True
            ),
        }
        devices = [device] if device.type == "cuda" else []
        with backbone.roles.using(adapter), _own_attention(backbone), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            outputs = list(backbone.base.generate_batch([list(prompt) for prompt in prompts], **settings).values())
        failed = next((output.error for output in outputs if output.error), None)
        if failed or len(outputs) != len(prompts) * group_size:
            raise ModelError(f"policy.sampler transformers: {failed or 'completions are missing'}; use own")
        drawn = [list(output.generated_tokens) for output in outputs]
        stops = set(backbone.chat.stop_ids)
        stopped = [ids[-1] in stops for ids in drawn]
        return Completions.of(backbone, prompts, group_size, drawn, [output.logprobs for output in outputs], stopped)

    @staticmethod
    def _drawing(backbone: Backbone, group_size: int, temperature: float, max_new_tokens: int) -> GenerationConfig:
        """The pure softmax at one temperature; 0 takes the likeliest."""
        drawn: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            num_return_sequences=group_size,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(backbone.chat.stop_ids),
            pad_token_id=backbone.chat.tokenizer.pad_token_id,
            **(drawn if temperature > 0 else {"do_sample": False}),
        )


@contextmanager
def _own_attention(backbone: Backbone) -> Iterator[None]:
    """The engine pages keys and values through the library's attention, not through packed sequences."""
    before = backbone.config._attn_implementation
    try:
        backbone.base.set_attn_implementation("sdpa")
        yield
    except ValueError as error:
        raise ModelError(f"policy.sampler transformers: {error}; use own") from None
    finally:
        backbone.base.set_attn_implementation(before)
