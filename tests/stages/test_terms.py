"""Rewards as the config names them: found or refused before a run, learned from, and gone on with exactly."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, dump_config, load_config
from pipeline.data.schema import Prompt
from pipeline.evaluation.reward_terms import RewardError
from pipeline.lm.sources import ModelError, resolve
from pipeline.rundir import RunDir, read_jsonl
from pipeline.stages import policy as stage
from pipeline.stages import terms as module
from pipeline.stages.chain import stage_fingerprint
from pipeline.stages.terms import check_terms
from tests.conftest import ROOT
from tests.lm.builders import SIZES
from tests.stages.builders import config, train

EVEN = """
def share(prompt, completion, row):
    return sum(ord(c) % 2 == 0 for c in completion) / max(1, len(completion))
"""
SHORT: dict[str, Any] = {"missing_eos": "penalty", "missing_eos_value": 0.0}  # nobody ends here


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module."""
    (tmp_path / "my_rewards.py").write_text(EVEN, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    module._source_hash.cache_clear()
    return tmp_path


def with_code(cfg: Config, folder: Path) -> Config:
    return cfg.model_copy(update={"code_dir": str(folder)})


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


# ---- found or refused ---------------------------------------------------------------------------------------


def test_a_module_beside_the_config_file_is_found(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path, rewards={"even": {"function": "my_rewards:share"}})
    with pytest.raises(RewardError, match=r"policy.rewards.even: my_rewards:share can't be imported: ModuleNotFound"):
        check_terms(cfg)
    file = code / "run.yaml"
    file.write_text(dump_config(cfg), encoding="utf-8")
    loaded = load_config(file)
    assert loaded.code_dir == str(code)
    check_terms(loaded)


def test_a_function_that_is_not_there_is_refused(code: Path, tmp_path: Path) -> None:
    cfg = with_code(config(tmp_path, rewards={"x": {"function": "my_rewards:nothing"}}), code)
    with pytest.raises(RewardError, match="AttributeError"):
        check_terms(cfg)


def test_a_changed_function_changes_the_fingerprint(code: Path, tmp_path: Path, before: RunDir) -> None:
    cfg = with_code(config(tmp_path, rewards={"even": {"function": "my_rewards:share"}}), code)
    first = stage_fingerprint(cfg, before, "policy")
    assert stage_fingerprint(cfg, before, "policy") == first
    (code / "my_rewards.py").write_text(EVEN.replace("== 0", "== 1"), encoding="utf-8")
    assert stage_fingerprint(cfg, before, "policy") == first  # this process goes on with what it has imported
    module._source_hash.cache_clear()  # another process
    assert stage_fingerprint(cfg, before, "policy") != first
    assert stage_fingerprint(cfg, before, "evaluate") if before.result("policy") else True


def test_what_is_neither_folder_nor_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sequence classifier 'runs/oher'"):
        check_terms(config(tmp_path, rewards={"x": {"model": "runs/oher"}}))


def test_an_adapter_without_a_head_is_no_reward_model(tmp_path: Path, before: RunDir) -> None:
    cfg = config(tmp_path, rewards={"x": {"model": str(before.artifact("sft", "sft"))}})
    with pytest.raises(RewardError, match=r"has no head.safetensors: it is no reward model"):
        check_terms(cfg)


def test_a_run_on_another_base_is_refused(tmp_path: Path, before: RunDir, model: str) -> None:
    before.create(dump_config(config(tmp_path, model)))
    own = config(tmp_path, model, rewards={"x": {"model": str(before.path)}})
    check_terms(own)
    other = own.model_copy(update={"lora": own.lora.model_copy(update={"r": 8})})
    with pytest.raises(RewardError, match="another model or lora section"):
        check_terms(other)


# ---- learned from -------------------------------------------------------------------------------------------


def test_the_policy_learns_a_reward_that_can_be_checked(code: Path, before: RunDir, tmp_path: Path, model: str) -> None:
    """The share of characters with an even code: one half by chance."""
    options = {
        "algorithm": "rloo",
        "rewards": {"even": {"function": "my_rewards:share"}},
        "steps": 25,
        "prompts_per_step": 4,
        "group_size": 8,
        "minibatch_size": 16,
        "microbatch_size": 16,
        "learning_rate": 0.02,
        "kl_coef": 0.0,
        "sampling": {"max_new_tokens": 6, "temperature": 1.0},
    }
    metrics, rows = train(before, with_code(config(tmp_path, model, **SHORT | options), code))
    assert metrics["reward.even"] == metrics["score"] > metrics["reward.even_first"] + 0.15
    assert rows[0]["reward/even"] == rows[0]["objective/score"]


def test_own_model_other_run_adapter_folder_and_classifier_together(
    before: RunDir, tmp_path: Path, model: str, cache: Path
) -> None:
    """The other run is a copy of this one: the same model four ways, but for the classifier. On the scale of SFT's
    answers two of them agree exactly, and differ from the own one, whose head was never put on that scale here."""
    other = RunDir(shutil.copytree(before.path, tmp_path / "other"))
    other.create(dump_config(config(tmp_path, model)))
    sizes = SIZES | {"num_labels": 1}
    torch.manual_seed(0)
    classifier = LlamaForSequenceClassification(LlamaConfig(**sizes, eos_token_id=2, bos_token_id=None, pad_token_id=0))
    classifier.save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(tmp_path / "classifier")
    rewards = {
        "own": {"model": "reward"},
        "run": {"model": str(other.path), "weight": 0.5},
        "folder": {"model": str(other.artifact("reward", "reward")), "weight": 0.25},
        "published": {"model": str(tmp_path / "classifier"), "weight": 2.0},
    }
    _, rows = train(before, config(tmp_path, model, algorithm="rloo", rewards=rewards, **SHORT))
    for row in rows:
        own, run, folder, published = (row[f"reward/{name}"] for name in rewards)
        assert run == folder != own
        assert row["objective/score"] == pytest.approx(own + 0.75 * run + 2 * published, abs=1e-5)
    # On the policy's first completions, drawn from SFT: not far from its mean.
    assert abs(rows[0]["reward/run"]) < 2


# ---- gone on with exactly -----------------------------------------------------------------------------------

FRAGILE = """
from pathlib import Path

def length(prompt, completion, row):
    if row["prompt"] == "f" and Path(__file__).with_name("break").exists():
        raise RuntimeError("out of order")
    return len(completion) / 4
"""


def test_a_function_that_fails_in_between_costs_nothing(
    code: Path, before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails on the prompt "f" while a file is there. Whole steps stay, and once mended the run ends with the bits of
    one that nothing interrupted; the other run's scale is part of that."""
    (code / "my_fragile.py").write_text(FRAGILE, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "my_fragile", raising=False)
    other = RunDir(shutil.copytree(before.path, tmp_path / "other"))
    other.create(dump_config(config(tmp_path, model)))
    rewards = {"length": {"function": "my_fragile:length"}, "other": {"model": str(other.path)}}
    options = {"algorithm": "rloo", "steps": 6, "prompts_per_step": 1, "learning_rate": 0.01, "rewards": rewards}
    cfg = with_code(config(tmp_path, model, **SHORT | options), code)
    _, whole = train(before, cfg)
    kept = (before.path / "policy" / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(before.path / "policy")

    def go_on() -> Any:
        out = before.open_stage("policy", "mark", resume=True)
        return stage.run(cfg, before, out, Checkpoints(out, seconds=0))

    (code / "break").touch()
    with pytest.raises(RewardError, match=r"policy.rewards.length \(my_fragile:length\), row prompts.jsonl:6"):
        go_on()
    rows = read_jsonl(before.path / "policy" / "metrics.jsonl")
    assert 0 < len(rows) < 6
    assert without_times(rows) == without_times(whole[: len(rows)])
    assert not (before.path / "policy" / "result.json").exists()
    (code / "break").unlink()
    go_on()
    assert without_times(read_jsonl(before.path / "policy" / "metrics.jsonl")) == without_times(whole)
    assert (before.path / "policy" / "adapter" / "adapter_model.safetensors").read_bytes() == kept
    assert json.loads((before.path / "policy" / "result.json").read_text(encoding="utf-8"))["metrics"]["steps"] == 6


def test_the_documentation_s_examples_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config loads, and its function is found beside it and gives what it says."""
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    (example,) = (part.split("```")[0] for part in page.split("```yaml\n")[1:])
    (code,) = (part.split("```")[0] for part in page.split("```python\n")[1:])
    smoke = (ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8")
    written = smoke.replace("policy:\n", example)
    (tmp_path / "documented.yaml").write_text(written, encoding="utf-8")
    (tmp_path / "my_rewards.py").write_text(code, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    loaded = load_config(tmp_path / "documented.yaml")
    assert list(loaded.policy.rewards) == ["taste", "correct", "harmless", "brief"]
    brief = module.function_terms(loaded)["brief"]
    assert brief.values([Prompt(({"role": "user", "content": "?"},), "", {})], ["two words"]) == [-0.02]
