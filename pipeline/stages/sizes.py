"""How large the configured model is, and how long the rows are that its stages will meet: what a plan reckons with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, LocalLlmJudgeConfig, ModelConfig, RewardModelJudgeConfig
from pipeline.lm.footprint import Footprint
from pipeline.lm.sources import ModelError, resolve
from pipeline.stages.doctor import lengths_of, whole
from pipeline.stages.inputs import open_run, same_base


def footprint(config: Config) -> Footprint:
    """Of the configured base and adapters."""
    return _footprint(config.model, config.model_dump()["lora"], "model.name")


def judges(config: Config) -> dict[str, tuple[Footprint, int]]:
    """Of the judges that bring a model of their own, by name, and the rows that they read at once. One of them is in
    memory at a time, while it is asked."""
    found = {}
    for name, judge in config.evaluate.judges.items():
        key = f"evaluate.judges.{name}"
        if isinstance(judge, RewardModelJudgeConfig) and judge.run is not None:
            other, _ = open_run(Path(judge.run))
            if not same_base(other, config):
                size = _footprint(other.model, other.model_dump()["lora"], f"{key}: the run's model.name")
                found[name] = size, judge.batch_size
        elif isinstance(judge, RewardModelJudgeConfig | LocalLlmJudgeConfig) and judge.model is not None:
            sha256 = judge.sha256 if isinstance(judge, LocalLlmJudgeConfig) else None
            model = config.model.model_copy(update={"name": judge.model, "sha256": sha256})
            found[name] = _footprint(model, None, f"{key}.model"), judge.batch_size
    return found


def _footprint(model: ModelConfig, lora: Mapping[str, Any] | None, key: str) -> Footprint:
    source = resolve(model.name, sha256=model.sha256, cache_dir=model.cache_dir)
    try:
        return Footprint.of(source, lora, fast=model.fast, trust_remote_code=model.trust_remote_code)
    except (OSError, ConnectionError) as error:
        raise ModelError(f"{key} {model.name!r}: its configuration can't be read: {error}") from None


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest prompt and the longest whole sequence, by stage; of rows that learn side by side, the mean
    of the longest."""

    sft: float
    pair: float  # of a chosen and a rejected answer with their prompt, as often as it is computed
    prompt: int
    evaluated: int
    kept: float = math.inf  # tokens of all training rows of a supervised stage, of which states may be kept


def limits(config: Config) -> Lengths:
    """What the config allows."""
    new = config.policy.sampling.max_new_tokens
    prompt = config.policy.max_prompt_length
    pair = 0 if config.reward is None else 2 * config.reward.max_length
    return Lengths(config.sft.max_length, pair, prompt, prompt + new)


def measured(config: Config) -> Lengths:
    """What the data's longest rows have, within the limits."""
    found = lengths_of(config)
    sft, both = whole(found["sft"]).clip(max=config.sft.max_length), np.zeros(0)
    pair = 0.0
    if (cfg := config.reward) is not None:
        both = pairs(found["reward"], cfg.max_length, packed=footprint(config).fused)
        pair = longest(both, cfg.microbatch_size)
    sampling = config.evaluate.sampling or config.policy.sampling
    return Lengths(
        longest(sft, config.sft.microbatch_size),
        pair,
        min(config.policy.max_prompt_length, int(whole(found["policy"]).max(initial=0))),
        int(whole(found["evaluate"]).max(initial=0)) + sampling.max_new_tokens,
        float(max(sft.sum(), both.sum())),
    )


def longest(tokens: np.ndarray, rows: int) -> float:
    """Mean of the `rows` longest: no microbatch has more tokens than that many times it."""
    return float(np.sort(tokens)[-rows:].mean()) if len(tokens) else 0.0


def pairs(tokens: Mapping[str, np.ndarray], limit: int, *, packed: bool) -> np.ndarray:
    """Tokens computed for each pair: both answers cut to `limit` with their prompt, which packed pairs share."""
    answers = [(tokens["prompt"] + tokens[side]).clip(max=limit) for side in ("chosen", "rejected")]
    shared = np.minimum.reduce([tokens["prompt"], *answers]) if packed else 0
    return sum(answers) - shared  # type: ignore[no-any-return]
