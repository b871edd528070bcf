"""One step of every stage, end to end, on a tiny model of every architecture."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, parse_config
from pipeline.rundir import STAGES, read_jsonl, summary
from pipeline.stages.chain import run_all
from tests.lm.families import FAMILIES, write

GATES = ["sft_rows", "sft_learns", "sft_ends", "reward_beats_chance", "reward_beats_length"]  # a random model's fate


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve preferences, which serve every stage; one has an earlier turn."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": f"What is {n}?", "chosen": f"It's {n}.", "rejected": "No."} for n in range(11)
    ]
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
    rows.append({"prompt": [{"role": r, "content": c} for r, c in turns], "chosen": "Bye!", "rejected": "Hello!"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one_step(name: str, folder: Path, pairs: Path, run_dir: Path) -> Config:
    """PPO with a critic; adapters on the upper layer."""
    data = {"source": str(pairs)}
    fit = {"epochs": 1, "batch_size": 12, "microbatch_size": 6, "max_length": 256, "validation": 0.2}
    return parse_config(
        {
            "run_dir": str(run_dir),
            "model": {
                "name": str(folder),
                "device": "cpu",
                "chat_template": "chatml" if FAMILIES[name].tokenizer == "chatml" else None,
                # Where nothing is fast: recompute activations too.
                "gradient_checkpointing": not FAMILIES[name].packs,
            },
            "lora": {"r": 4, "alpha": 8.0, "layers": "upper"},
            "sft": {"data": data, **fit},
            "reward": {"data": data, **fit, "test": 0.3, "calibration_samples": 4},
            "policy": {
                "data": data,
                "steps": 1,
                "prompts_per_step": 2,
                "group_size": 2,
                "minibatch_size": 4,
                "microbatch_size": 4,
                "sampling": {"temperature": 1.0, "max_new_tokens": 9},
            },
            "evaluate": {"data": data | {"limit": 4}, "best_of": 2, "bootstrap": 50},
            "gates": {"skip": GATES},
            "logging": {"progress": False},
        },
        name,
    )


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("llama, shared head", "mistral")])
def test_every_stage_takes_a_step(name: str, pairs: Path, cache: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", cache, name)
    run = run_all(one_step(name, folder, pairs, tmp_path / "run"))
    assert all(run.result(stage) is not None for stage in STAGES)
    (step,) = read_jsonl(run.path / "policy" / "metrics.jsonl")
    assert step["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert step["policy/first_ratio_error"] <= 1e-4
    assert step["policy/sampler_mismatch"] <= 1e-4
    figures = summary(run)
    assert figures["reward.score_batch_error"] <= 1e-4
    assert all(math.isfinite(value) for value in figures.values() if isinstance(value, float))
    for stage, adapter in (("sft", "sft"), ("reward", "reward"), ("policy", "policy"), ("policy", "critic")):
        assert (run.artifact(stage, adapter) / "adapter_model.safetensors").stat().st_size > 0
