"""What every recipe needs, as docs/recipes.md shows it: memory by `align plan`, and the arithmetic of its policy stage.

    python scripts/plan_recipes.py

Needs neither weights nor network: each model's configuration is written from its published sizes, and planned for a GPU
in bf16 with every row as long as the recipe's limits allow.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from pipeline.config import Config, load_config
from pipeline.lm.footprint import Footprint
from pipeline.stages.plan import Planner
from pipeline.stages.sizes import limits

RECIPES = Path(__file__).parents[1] / "configs" / "recipes"
ALGORITHMS = ("ppo", "rloo")
BF16 = 2  # bytes
SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}
QWEN3: dict[str, Any] = QWEN2 | {"model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8}


def _sizes(hidden: int, inner: int, layers: int, heads: int, keys: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
    }


# What the models' own config.json say, by hub id.
PUBLISHED: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2 | _sizes(576, 1536, 30, 9, 3),
    "HuggingFaceTB/SmolLM2-360M-Instruct": SMOLLM2 | _sizes(960, 2560, 32, 15, 5),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": SMOLLM2 | _sizes(2048, 8192, 24, 32, 32) | {"rope_theta": 130_000.0},
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN2 | _sizes(896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN2 | _sizes(1536, 8960, 28, 12, 2),
    "Qwen/Qwen3-0.6B": QWEN3 | _sizes(1024, 3072, 28, 16, 8),
    "Qwen/Qwen3-1.7B": QWEN3 | _sizes(2048, 6144, 28, 16, 8),
    "Qwen/Qwen3-8B": QWEN3 | _sizes(4096, 12288, 36, 32, 8) | {"tie_word_embeddings": False},
    "meta-llama/Llama-3.2-1B-Instruct": _sizes(2048, 8192, 16, 32, 8)
    | {
        "model_type": "llama",
        "vocab_size": 128256,
        "head_dim": 64,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
        "max_position_embeddings": 131072,
    },
}


@dataclass(frozen=True)
class Recipe:
    """A dataset's file, a model's file (None = the one that the dataset's names), and the algorithm."""

    data: str
    model: str | None
    algorithm: str

    @property
    def config(self) -> Config:
        overrides = [] if self.model is None else [str(RECIPES / "models" / f"{self.model}.yaml")]
        return load_config(RECIPES / f"{self.data}.yaml", [*overrides, f"policy.algorithm={self.algorithm}"])


def recipes() -> Iterator[Recipe]:
    """All of them: datasets × models × algorithms, the small models first."""
    datasets = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    models: list[str | None] = [None, *(path.stem for path in (RECIPES / "models").glob("*.yaml"))]
    for model in sorted(models, key=lambda model: size_of(Recipe(datasets[0], model, "ppo").config).parameters):
        for data in datasets:
            yield from (Recipe(data, model, algorithm) for algorithm in ALGORITHMS)


def size_of(config: Config) -> Footprint:
    """Of the configured model, from its published sizes."""
    lora = config.lora.model_dump()
    return _size_of(config.model.name, lora["r"], str(lora["targets"]), lora["layers"])


@cache
def _size_of(name: str, rank: int, targets: str, layers: Any) -> Footprint:
    with tempfile.TemporaryDirectory() as folder:
        AutoConfig.for_model(**PUBLISHED[name]).save_pretrained(folder)
        return Footprint.of(folder, {"r": rank, "targets": targets, "layers": layers})


def peaks(config: Config) -> dict[str, float]:
    """GB (10⁹ bytes) that each stage has allocated at its peak, on a GPU in bf16; the driver's own aside."""
    planner = Planner(config, size_of(config), {}, BF16, True, limits(config))
    stages = (planner.sft(), planner.reward(), planner.policy(), planner.evaluate())
    return {one.stage: one.peak / 1e9 for one in stages}


def policy_flop(config: Config) -> float:
    """Of the policy stage, if every prompt and completion is as long as the limits: an upper bound.

    With N weights in the layers' linear maps, of which adapters stand on the upper half, a token costs 2N in a whole
    pass, N in one of the upper half, and N on the way back. A step reads and writes each sequence once (2N), then
    passes it through the upper half for the score, the reference, the log-probs (bf16 recomputes them) and the update
    (4N, and N back). PPO's critic, an adapter of its own, makes three more (its values, its update forward and back);
    on the policy's trunk none. Checkpointing repeats what the update passes forward, and a 4-bit base the lower half,
    whose states its decoder doesn't leave. The head costs 2VD a completion's token when sampling, for the reference
    and for the log-probs, and 4VD in the update. Attention between tokens is left out: it is small at these lengths.
    """
    cfg, size = config.policy, size_of(config)
    critic = cfg.needs_critic and cfg.critic == "adapter"
    passes = 7 + 3 * critic
    passes += (1 + critic) * config.model.gradient_checkpointing + (config.model.quantization != "none")
    new = cfg.sampling.max_new_tokens
    completions = cfg.steps * cfg.prompts_per_step * cfg.group_size
    sequence = passes * size.linear * (cfg.max_prompt_length + new)
    return float(completions * (sequence + 10 * size.vocabulary * size.hidden * new))


def table() -> str:
    """Two tables in Markdown: a model a row, a dataset a column, PPO before RLOO."""
    found = list(recipes())
    datasets = list(dict.fromkeys(recipe.data for recipe in found))
    models = list(dict.fromkeys(recipe.model for recipe in found))
    heads = "".join(f" {name} |" for name in datasets)
    lines = {"GB": [f"| model, and its file in models/ | parameters |{heads}"], "PFLOP": [f"| model |{heads}"]}
    lines["GB"].append("|---|---|" + "---|" * len(datasets))
    lines["PFLOP"].append("|---|" + "---|" * len(datasets))
    for model in models:
        first = Recipe(datasets[0], model, "ppo").config
        name, count = first.model.name.partition("/")[2], size_of(first).parameters / 1e9
        file = "none: it is the default" if model is None else f"`{model}.yaml`"
        memory = lambda config: f"{max(peaks(config).values()):.1f}"  # noqa: E731
        work = lambda config: f"{policy_flop(config) / 1e15:,.0f}"  # noqa: E731
        lines["GB"].append(f"| {name}: {file} | {count:.2f} B |{_cells(datasets, model, memory)}")
        lines["PFLOP"].append(f"| {name} |{_cells(datasets, model, work)}")
    return "\n\n".join("\n".join(rows) for rows in lines.values())


def _cells(datasets: list[str], model: str | None, figure: Any) -> str:
    """PPO / RLOO for each dataset."""
    both = (" / ".join(figure(Recipe(data, model, algorithm).config) for algorithm in ALGORITHMS) for data in datasets)
    return "".join(f" {one} |" for one in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(table())


if __name__ == "__main__":
    main()
