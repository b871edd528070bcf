"""What learns from rows alone: SFT, the reward models, and DPO."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.config.base import Fraction, NonNegative, OptimizerName, Positive, Rate, Section
from pipeline.config.data import DataConfig

CALIBRATION_SAMPLES = 96


class LoopConfig(Section):
    """How the supervised loop runs (stages/fit.py)."""

    epochs: Positive = 3
    learning_rate: Rate = 3e-4
    optimizer: OptimizerName = Field("adamw", description="8bit: moments in a quarter of the memory; paged: on a GPU")
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.0
    batch_size: Positive = 8
    microbatch_size: Positive = 8
    max_length: Positive = 512
    max_grad_norm: Rate = 1.0


class FitConfig(LoopConfig):
    """What SFT and the reward model share."""

    data: DataConfig
    validation: Fraction = Field(0.1, description="share of the prompts held out to choose the best epoch")


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
    calibration_samples: Positive = Field(
        CALIBRATION_SAMPLES, description="SFT samples that define score mean 0, deviation 1"
    )

    @model_validator(mode="after")
    def _judges_have_pairs(self) -> "RewardConfig":
        if self.judges > 1 and self.judge == 0:
            raise ValueError(f"judges is {self.judges}, but judge: 0 leaves no pairs to train them on")
        return self

    @property
    def judge_names(self) -> list[str]:
        """Adapters of the judges: judge, judge_2, …; none without a share of the pairs."""
        return ["judge", *(f"judge_{k}" for k in range(2, self.judges + 1))] if self.judge else []


class DpoConfig(LoopConfig):
    """Direct preference optimisation as a baseline: no reward model, no sampling. Learns from the reward model's pairs.

    `dpo: {}` turns it on.
    """

    beta: Rate = Field(0.1, description="β, price of a nat of leaving SFT; the higher, the nearer it stays")
    epochs: Positive = 1
    learning_rate: Rate = 5e-5
    batch_size: Positive = 16
