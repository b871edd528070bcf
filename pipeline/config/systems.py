"""Systems besides the run's own that its evaluation compares: `evaluate.systems`."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section

SYSTEMS = ("base", "sft", "policy", "best_of_n")  # the run's own


class OtherSystem(Section):
    """Another run's adapter on the same base, or answers from a file."""

    run: str | None = Field(None, description="folder of another run with the same model and lora section")
    adapter: Literal["sft", "policy"] = Field("policy", description="which of that run's models answers")
    outputs: str | None = Field(
        None, description="or a JSON file of {instruction, output, generator}, as AlpacaEval's model_outputs.json"
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "OtherSystem":
        if (self.run is None) == (self.outputs is None):
            raise ValueError("give exactly one of run (a run folder) and outputs (a file of answers)")
        return self
