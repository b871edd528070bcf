"""The comparison: prompts, systems, judges."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Positive, Section
from pipeline.config.data import DataConfig
from pipeline.config.judges import JUDGE_NAME, RESERVED_NAMES, JudgeConfig
from pipeline.config.policy import SamplingConfig

SYSTEMS = ("base", "sft", "policy", "best_of_n", "dpo")  # the run's own


class OtherSystem(Section):
    """Another run's adapter on the same base, or answers from a file."""

    run: str | None = Field(None, description="folder of another run with the same model and lora section")
    adapter: Literal["sft", "policy", "dpo"] = Field("policy", description="which of that run's models answers")
    outputs: str | None = Field(
        None, description="or a JSON file of {instruction, output, generator}, as AlpacaEval's model_outputs.json"
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "OtherSystem":
        if (self.run is None) == (self.outputs is None):
            raise ValueError("give exactly one of run (a run folder) and outputs (a file of answers)")
        return self


class EvaluateConfig(Section):
    """Blind comparison of base, SFT and policy on held-out prompts by a judge the policy never saw."""

    data: DataConfig
    sampling: SamplingConfig | None = Field(None, description="null = the policy's")
    batch_size: Positive = 32
    samples: Positive = Field(1, description="answers of each system to each prompt, compared one by one")
    best_of: Positive = Field(4, description="best-of-n from SFT as a baseline; 1 = leave it out")
    bootstrap: Positive = Field(2000, description="resamples behind the interval of a win rate at equal length")
    rewarded: bool = Field(True, description="tell what the functions of policy.rewards give everybody's answers")
    systems: dict[str, OtherSystem] = Field(
        default_factory=dict, description="further systems by name: other runs' adapters, or answers from a file"
    )
    judges: dict[str, JudgeConfig] = Field(
        default_factory=dict, description="further judges by name; the headline stays the run's own"
    )
    judge_pairs: list[str] = Field(
        ["policy_vs_sft"], min_length=1, description="what they compare, as 'a_vs_b'; some cost money by the comparison"
    )

    @model_validator(mode="after")
    def _names_and_pairs(self) -> "EvaluateConfig":
        for name in self.judges:
            if not JUDGE_NAME.fullmatch(name) or name in RESERVED_NAMES:
                own = " (that is the run's own)" if name in RESERVED_NAMES else ""
                raise ValueError(f"judges: {name!r} can't be a judge's name{own}; use a-z, 0-9 and _, a letter first")
        for name in self.systems:
            if not JUDGE_NAME.fullmatch(name) or name in SYSTEMS or "_vs_" in name:
                raise ValueError(f"systems: {name!r} can't be a system's name; use a-z, 0-9 and _, a letter first")
        there = [system for system in SYSTEMS if system != "best_of_n" or self.best_of > 1] + list(self.systems)
        for pair in self.judge_pairs:
            first, _, second = pair.partition("_vs_")
            if first == second or not {first, second} <= set(there):
                raise ValueError(f"judge_pairs: {pair!r} must be 'a_vs_b' of two different among {', '.join(there)}")
        if len(set(self.judge_pairs)) < len(self.judge_pairs):
            raise ValueError("judge_pairs: a pair stands there twice")
        return self
