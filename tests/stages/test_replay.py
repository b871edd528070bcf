"""A NaN stops the policy stage, names its step, and leaves what `align replay` shows."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import dump_config
from pipeline.lm.reward import RewardModel
from pipeline.rundir import RunDir, RunError
from pipeline.stages.replay import load_batch, replay
from tests.stages.builders import config, train


@pytest.fixture
def broken(before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose reward model gives the second completion of the second step a NaN."""
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(before.path, run_dir.path)
    cfg = config(tmp_path, model, missing_eos="penalty", steps=4)
    run_dir.create(dump_config(cfg))
    score, calls = RewardModel.score, []

    def poisoned(self: RewardModel, *arguments: Any, **options: Any) -> Tensor:
        scores = score(self, *arguments, **options)
        calls.append(1)
        return scores.index_fill(0, torch.tensor([1]), float("nan")) if len(calls) == 2 else scores

    with monkeypatch.context() as patch:
        patch.setattr(RewardModel, "score", poisoned)
        with pytest.raises(FloatingPointError, match=r"(?s)step 2: .*align replay"):
            train(run_dir, cfg)
    return run_dir


def test_the_batch_and_the_weights_are_kept(broken: RunDir) -> None:
    folder = broken.path / "policy" / "offending"
    rollout = load_batch(folder)
    assert len(rollout) == 4
    assert torch.isnan(rollout.rewards).any(dim=1).tolist() == [False, True, False, False]
    assert (folder / "policy" / "adapter_model.safetensors").is_file()
    assert (folder / "critic" / "head.safetensors").is_file()
    assert broken.result("policy") is None


def test_replay_marks_the_row(broken: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    replay(broken.path)
    shown = capsys.readouterr().out
    assert "step 2" in shown
    assert shown.count("not finite: return") <= 1  # a narrow terminal breaks the words
    assert "nan" in shown
    assert "policy: 0 of" in shown
    assert "critic: 0 of" in shown


def test_without_an_offender_it_says_so(before: RunDir, tmp_path: Path, model: str) -> None:
    before.create(dump_config(config(tmp_path, model)))
    with pytest.raises(RunError, match="keeps no offending batch"):
        replay(before.path)
    with pytest.raises(RunError, match=r"config\.yaml is missing"):
        replay(tmp_path / "nowhere")
