"""The whole chain on a CUDA device, as `align run` does it there: bf16 base, recorded decoding. `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

from .test_pipeline import align

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_the_smoke_run_on_a_gpu(tmp_path: Path, cache: Path, algorithm: str) -> None:
    run = align(tmp_path / "run", cache, f"policy.algorithm={algorithm}")
    metrics = run.require("policy").metrics
    assert run.require("policy").environment["device"].startswith("cuda")
    assert run.require("policy").environment["dtype"] == "bfloat16"
    assert metrics["kl_first"] == 0.0
    assert metrics["sampler_mismatch"] < 0.1
    assert 0 <= run.require("evaluate").metrics["win_rate.policy_vs_sft"] <= 1


def test_upper_half_and_checkpointing(tmp_path: Path, cache: Path) -> None:
    run = align(tmp_path / "run", cache, "lora.layers=upper", "model.gradient_checkpointing=true")
    metrics = run.require("policy").metrics
    assert metrics["kl_first"] == 0.0
    assert metrics["first_ratio_error"] < 1e-5
