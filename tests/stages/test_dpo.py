"""The DPO stage: reference log-probs, a loss that falls, the same bits after a stop, and the judge's pairs unseen."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, ConfigError, parse_config
from pipeline.rundir import RunDir, StageDir, StageResult, read_jsonl
from pipeline.stages import dpo as stage
from pipeline.stages.chain import stage_fingerprint
from pipeline.stages.inputs import Source, encode_pairs, load_backbone, read
from tests.lm.builders import naive_logprobs
from tests.stages.builders import config


@pytest.fixture
def cfg(tmp_path: Path, model: str) -> Config:
    """Twenty prompts; the answer with more a's is preferred, which a model of bytes can learn."""
    rows = [
        {"prompt": f"q{i}", "chosen": "a" * (3 + i % 3) + "b", "rejected": "b" * (3 + i % 4) + "a"} for i in range(20)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sections = config(tmp_path, model).model_dump()
    sections["reward"] |= {"data": sections["reward"]["data"] | {"source": str(data)}, "test": 0.2, "validation": 0.2}
    sections["lora"]["dropout"] = 0.1
    settings = {"epochs": 3, "learning_rate": 0.01, "batch_size": 4, "microbatch_size": 3, "max_length": 64}
    return parse_config(sections | {"dpo": settings})


def train(before: RunDir, cfg: Config, *, resume: bool = False) -> StageResult:
    out = before.open_stage("dpo", "mark", resume=resume)
    return stage.run(cfg, before, out, Checkpoints(out, seconds=0))


def test_it_learns_and_starts_at_the_reference(before: RunDir, cfg: Config) -> None:
    metrics = train(before, cfg).metrics
    assert metrics["loss_before"] == pytest.approx(0.693147, abs=1e-5)
    assert metrics["loss"] < 0.6
    assert metrics["accuracy"] == 1.0
    assert metrics["margin"] > 0.1
    assert json.loads((before.artifact("dpo", "dpo") / "role.json").read_text(encoding="utf-8"))["beta"] == 0.1


def test_reference_log_probs_are_those_of_the_sft_adapter(before: RunDir, cfg: Config) -> None:
    """One answer by one, all logits, log_softmax."""
    backbone = load_backbone(cfg)
    backbone.restore("sft", before.artifact("sft", "sft"))
    source = read(cfg, cfg.reward.data, "preferences")
    pairs = [stage.Pair(one) for one in encode_pairs(backbone.chat, Source(source.rows[:5], source.bad, {}), 64)]
    stage.remember_reference(backbone, pairs, 3, visible=False)
    for pair in pairs:
        start = pair.encoded.prompt_length
        for ids, found in ((pair.encoded.chosen, pair.ref_chosen), (pair.encoded.rejected, pair.ref_rejected)):
            with torch.no_grad():
                expected = naive_logprobs(backbone, "sft", ids[:start], ids[start:]).sum().item()
            assert found == pytest.approx(expected, abs=1e-4)


def test_it_learns_from_the_reward_model_s_pairs_alone(
    before: RunDir, cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither test pairs nor the judge's."""
    seen: set[str] = set()
    whole = stage.dpo_task

    def watched(backbone: Any, train: Any, held: Any, *rest: Any, **options: Any) -> Any:
        seen.update(pair.encoded.row.key for pair in [*train, *held])
        return whole(backbone, train, held, *rest, **options)

    monkeypatch.setattr(stage, "dpo_task", watched)
    train(before, cfg)
    parts = stage.split_pairs(read(cfg, cfg.reward.data, "preferences").rows, cfg.reward, cfg.seed)
    assert seen == {row.key for part in ("reward", "reward_validation") for row in parts[part]}
    assert seen.isdisjoint(row.key for part in ("test", "judge", "judge_validation") for row in parts[part])


@pytest.mark.parametrize("layers", ["all", "upper"])
def test_stopped_in_between_it_ends_with_the_same_bits(
    before: RunDir, cfg: Config, monkeypatch: pytest.MonkeyPatch, layers: str, tmp_path: Path, cache: Path, model: str
) -> None:
    if layers == "upper":
        sections = cfg.model_dump()
        sections["lora"]["layers"] = "upper"
        cfg = parse_config(sections)
        before = RunDir(tmp_path / "upper")
        out = before.open_stage("sft", "sft")
        backbone = load_backbone(cfg)
        backbone.roles.add("sft")
        backbone.save("sft", out.path / "adapter", role={})
        out.finish({}, artifacts={"sft": "adapter"})
    train(before, cfg)
    folder = before.path / "dpo"
    whole = ((folder / "adapter" / "adapter_model.safetensors").read_bytes(), read_jsonl(folder / "metrics.jsonl"))
    shutil.rmtree(folder)
    log = StageDir.log
    with monkeypatch.context() as patch:

        def killed(self: StageDir, step: int, figures: Any) -> None:
            if step == 5 and "dpo/loss" in figures:
                raise KeyboardInterrupt
            log(self, step, figures)

        patch.setattr(StageDir, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            train(before, cfg)
    assert 0 < len(read_jsonl(folder / "metrics.jsonl")) < len(whole[1])
    train(before, cfg, resume=True)
    again = ((folder / "adapter" / "adapter_model.safetensors").read_bytes(), read_jsonl(folder / "metrics.jsonl"))
    assert again == whole


def test_the_fingerprint_knows_the_pairs_and_not_the_reward_model_s_settings(before: RunDir, cfg: Config) -> None:
    first = stage_fingerprint(cfg, before, "dpo")

    def changed(**reward: Any) -> str:
        return stage_fingerprint(cfg.model_copy(update={"reward": cfg.reward.model_copy(update=reward)}), before, "dpo")

    assert changed(learning_rate=1e-5, centering=0.5) == first
    assert changed(judge=0.25) != first
    Path(cfg.reward.data.source).write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    assert changed() != first


def test_without_its_section_the_stage_is_refused(before: RunDir, cfg: Config) -> None:
    with pytest.raises(ConfigError, match=r"no dpo section; `dpo=\{\}` turns it on"):
        stage_fingerprint(cfg.model_copy(update={"dpo": None}), before, "dpo")
