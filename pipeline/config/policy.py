"""Policy optimisation: what is sampled, how it learns, and when it looks wrong."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Fraction, NonNegative, OptimizerName, Positive, Rate, Section
from pipeline.config.data import DataConfig
from pipeline.config.rewards import Rewards, check_terms, own_model_alone


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
    """Policy optimisation against what is rewarded: a frozen reward model unless `rewards` says otherwise."""

    data: DataConfig
    rewards: Rewards = Field(
        default_factory=own_model_alone,
        min_length=1,
        description="what is paid for, by name: score = Σ weight · term",
    )
    algorithm: Literal["ppo", "reinforce", "reinforce++", "rloo", "grpo", "dr_grpo"] = "ppo"
    critic: Literal["adapter", "shared_trunk"] = Field("adapter", description="ppo only")
    sampling: SamplingConfig = SamplingConfig()
    sampler: Literal["own", "transformers", "vllm"] = Field(
        "own", description="what draws completions: own, transformers' continuous batching, or vllm (extra [vllm])"
    )
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
    optimizer: OptimizerName = Field("adamw", description="8bit: moments in a quarter of the memory; paged: on a GPU")
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
        check_terms(self.rewards)
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
