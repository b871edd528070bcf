"""A whole config around one policy section, and a policy stage run from it."""

from pathlib import Path
from typing import Any

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, parse_config
from pipeline.rundir import RunDir, read_jsonl
from pipeline.stages import policy as stage


def config(tmp_path: Path, model: str = "tiny", **policy: Any) -> Config:
    """A whole config around one policy section; six short prompts."""
    data = tmp_path / "prompts.jsonl"
    if not data.exists():
        data.write_text("".join(f'{{"prompt": "{letter}"}}\n' for letter in "abcdef"), encoding="utf-8")
    section = {"data": {"source": str(data)}}
    settings: dict[str, Any] = {
        "steps": 2,
        "prompts_per_step": 2,
        "group_size": 2,
        "minibatch_size": 2,
        "microbatch_size": 2,
        "sampling": {"max_new_tokens": 4},
    }
    return parse_config(
        {
            "model": {"name": model, "device": "cpu"},
            "lora": {"r": 4, "alpha": 8.0},
            "logging": {"progress": False},
            **dict.fromkeys(("sft", "reward", "evaluate"), section),
            "policy": section | settings | policy,
        }
    )


def train(before: RunDir, cfg: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metrics of the result and the rows of metrics.jsonl."""
    out = before.open_stage("policy", "mark")
    result = stage.run(cfg, before, out, Checkpoints(out))
    return result.metrics, read_jsonl(out.path / "metrics.jsonl")
