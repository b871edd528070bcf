"""Where rows come from."""

import re
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Positive, Section


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
