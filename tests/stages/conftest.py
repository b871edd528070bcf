"""A model that can learn, and a run whose policy stage is next."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from pipeline.rundir import RunDir
from tests.lm.builders import SIZES, other_architecture, tiny


@pytest.fixture(scope="module")
def model(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Llama with a loud output head. At initialisation logits are so small that no state could prefer a token
    by much, and nothing could be learned through a frozen head."""
    config = LlamaConfig(**SIZES, eos_token_id=2, bos_token_id=None, pad_token_id=0)
    return str(other_architecture(tmp_path_factory.mktemp("loud"), cache, config, spread=10.0))


@pytest.fixture(scope="module")
def before(cache: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose sft and reward stages are done: adapters that do a little, a random head."""
    run_dir = RunDir(tmp_path_factory.mktemp("run"))
    torch.manual_seed(0)
    backbone = tiny(cache, name=model)
    for name in ("sft", "reward"):
        out = run_dir.open_stage(name, name)
        backbone.roles.add(name, head=name == "reward")
        with torch.no_grad():
            for parameter in backbone.roles.parameters_of(name):
                parameter.add_(0.05 * torch.randn_like(parameter))
        extra = {"role": name, "score_mean": 0.0, "score_std": 1.0}
        backbone.save(name, out.path / "adapter", role=extra)
        out.finish({}, artifacts={name: "adapter"})
    return run_dir
