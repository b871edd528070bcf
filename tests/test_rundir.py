"""The run folder: a result is there whole or not at all, and damage is named."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.atomic import write_atomically
from pipeline.rundir import RunDir, RunError, StageDir, fingerprint, read_jsonl, summary


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def finish(run: RunDir, stage: str, metrics: dict[str, Any] | None = None, **options: Any) -> Path:
    out = run.open_stage(stage, f"mark of {stage}")
    out.finish(metrics or {}, **options)
    return out.path


# ---- atomic writing -----------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def power_cut(*_: Any) -> None:
        raise OSError("power cut")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, power_cut)
            with pytest.raises(OSError, match="power cut"):
                write_atomically(path, "new")
        assert path.read_text(encoding="utf-8") == "old"
    write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "new"


def test_a_stage_counts_as_done_only_once_it_is_finished(run: RunDir) -> None:
    out = run.open_stage("sft", "mark")
    out.log(1, {"loss": 1.0})
    assert run.result("sft") is None
    out.finish({"loss": 0.5}, artifacts={"sft": "adapter"})
    result = run.result("sft")
    assert result is not None
    assert (result.fingerprint, result.metrics, result.artifacts) == ("mark", {"loss": 0.5}, {"sft": "adapter"})
    assert result.environment["device"] == "cpu"
    assert run.artifact("sft", "sft") == run.path / "sft" / "adapter"


# ---- damage and absence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"text"', "{}", '{"stage": "sft"}', '{"unknown": 1}'])
def test_a_damaged_result_is_named(run: RunDir, text: str) -> None:
    path = finish(run, "sft") / "result.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"result\.json is damaged; delete it"):
        run.result("sft")


def test_a_missing_predecessor_names_the_command(run: RunDir) -> None:
    with pytest.raises(RunError, match="no finished reward stage; run `align reward CONFIG` first"):
        run.require("reward")


def test_a_missing_artifact_names_those_there_are(run: RunDir) -> None:
    finish(run, "reward", artifacts={"reward": "reward", "judge": "judge"})
    with pytest.raises(RunError, match="reward left no 'critic'; it has reward, judge"):
        run.artifact("reward", "critic")


def test_a_folder_that_cant_be_made_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(RunError, match=r"can't be written.*set run_dir=PATH"):
        RunDir(tmp_path / "file" / "run").create("seed: 0\n")


# ---- stages that are repeated -------------------------------------------------------------------------------


def test_opening_a_stage_withdraws_it_and_all_after_it(run: RunDir) -> None:
    for stage in ("sft", "reward", "policy", "evaluate"):
        finish(run, stage)
    run.open_stage("policy", "mark")
    done = [stage for stage in ("sft", "reward", "policy", "evaluate") if run.result(stage) is not None]
    assert done == ["sft", "reward"]


def test_a_stage_starts_in_an_empty_folder(run: RunDir) -> None:
    out = run.open_stage("sft", "mark")
    out.log(1, {"loss": 1.0})
    (out.path / "stale").write_text("x", encoding="utf-8")
    again = run.open_stage("sft", "mark")
    assert list(again.path.iterdir()) == []


# ---- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_refused_with_name_and_step(tmp_path: Path, bad: float) -> None:
    out = StageDir(tmp_path / "policy", "policy", "mark")
    out.log(6, {"loss": 1.0})
    with pytest.raises(FloatingPointError, match=r"policy: objective/kl is (nan|inf|-inf) at step 7"):
        out.log(7, {"loss": 1.0, "objective/kl": bad})
    assert [row["step"] for row in read_jsonl(out.path / "metrics.jsonl")] == [6]


def test_rows_and_samples_are_appended_and_listeners_hear_them(tmp_path: Path) -> None:
    out = StageDir(tmp_path / "sft", "sft", "mark")
    heard: list[Any] = []
    out.listen(lambda step, row: heard.append((step, row)))
    out.log(1, {"loss": 0.5, "epoch": 1})
    out.log(2, {"loss": 0.25})
    out.sample([{"text": "Grüße\n\u2028"}])
    out.sample([{"text": "second"}])
    assert heard == [(1, {"loss": 0.5, "epoch": 1}), (2, {"loss": 0.25})]
    assert read_jsonl(out.path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5, "epoch": 1},
        {"step": 2, "loss": 0.25},
    ]
    lines = (out.path / "samples.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines if line] == ["Grüße\n\u2028", "second"]


def test_samples_with_strange_line_separators_can_be_read_back(tmp_path: Path) -> None:
    """Models write U+2028 and U+0085; JSON doesn't escape them, and only \\n ends a line."""
    out = StageDir(tmp_path / "policy", "policy", "mark")
    out.sample([{"text": "a\u2028b\u0085c\x1cd"}])
    assert read_jsonl(out.path / "samples.jsonl") == [{"text": "a\u2028b\u0085c\x1cd"}]


def test_no_file_means_no_rows(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "nothing.jsonl") == []


# ---- fingerprints and summary -------------------------------------------------------------------------------


def test_fingerprints_see_every_part_and_no_key_order() -> None:
    assert fingerprint({"a": 1, "b": 2}, "x") == fingerprint({"b": 2, "a": 1}, "x")
    others = [fingerprint({"a": 1, "b": 3}, "x"), fingerprint({"a": 1, "b": 2}, "y"), fingerprint({"a": 1, "b": 2})]
    assert len({fingerprint({"a": 1, "b": 2}, "x"), *others}) == 4


def test_the_summary_is_flat_and_adds_up(run: RunDir) -> None:
    finish(run, "sft", {"loss": 1.5})
    finish(run, "reward", {"accuracy": 0.7, "accuracy_low": 0.6})
    figures = summary(run)
    assert (figures["sft.loss"], figures["reward.accuracy"], figures["reward.accuracy_low"]) == (1.5, 0.7, 0.6)
    assert figures["total_seconds"] == pytest.approx(figures["sft.seconds"] + figures["reward.seconds"], abs=0.011)
    assert figures["sft.peak_rss_mb"] > 10
    assert not [name for name in figures if name.startswith(("policy", "evaluate"))]


@pytest.mark.parametrize("place", ["../../elsewhere", "/etc", "adapter/../../sft/adapter"])
def test_an_artifact_outside_of_its_stage_is_refused(run: RunDir, place: str) -> None:
    """A result.json from somewhere else must not lead the loader through the disk."""
    run.open_stage("reward", "mark").finish({}, artifacts={"reward": place})
    with pytest.raises(RunError, match="outside of its folder"):
        run.artifact("reward", "reward")


def test_files_that_a_killed_process_was_writing_are_gone_when_the_stage_goes_on(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    adapter = run.open_stage("sft", "mark").path / "adapter"
    adapter.mkdir()
    halves = [adapter / ".tmpY2x9", adapter.parent / ".result.json.4711.tmp"]
    for file in (*halves, adapter / "weights"):
        file.write_text("x")
    run.open_stage("sft", "mark", resume=True)
    assert not any(file.exists() for file in halves)
    assert (adapter / "weights").exists()
