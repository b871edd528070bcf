"""The smoke run with DPO on: a system like the others, from the stage to the page."""

from pathlib import Path

import pytest

from pipeline.config import ConfigError, load_config
from pipeline.report.load import load
from pipeline.report.win_tables import standing
from pipeline.rundir import ALL_STAGES, RunDir, read_jsonl, summary
from tests.conftest import ROOT, Align
from tests.test_pipeline import align


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return align(tmp_path_factory.mktemp("runs") / "dpo", cache, "dpo={}", "policy.steps=1")


def test_it_is_compared_by_the_same_judge_on_the_same_prompts(run: RunDir) -> None:
    figures = summary(run)
    for pair in ("dpo_vs_sft", "policy_vs_dpo"):
        assert figures[f"evaluate.win_rate.{pair}_n"] == figures["evaluate.win_rate.policy_vs_sft_n"] == 8
    assert {"dpo.loss", "dpo.accuracy", "dpo.seconds", "evaluate.dpo_kl", "evaluate.mean_tokens.dpo"} <= set(figures)
    assert figures["dpo.loss_before"] == pytest.approx(0.6931, abs=1e-4)
    assert {row["system"] for row in figures["evaluate.standing"]} == {"base", "sft", "policy", "best_of_n", "dpo"}


def test_the_page_shows_it(run: RunDir) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for part in ("policy vs DPO", "DPO vs SFT", "DPO&#39;s loss", "What DPO learned", 'class="answer dpo"', "over DPO"):
        assert part in page, part
    assert all("dpo" in row["answers"] for row in read_jsonl(run.path / "evaluate" / "samples.jsonl"))
    found = load(run.path)
    assert list(found.stages) == list(ALL_STAGES)
    assert not found.unfinished
    assert standing(found) is not None


def test_a_page_without_it_says_nothing_of_it(run: RunDir, tmp_path: Path) -> None:
    """A run that never had the section has no unfinished stage."""
    text = (run.path / "config.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("dpo:\n")
    rest = after[after.index("\npolicy:") + 1 :]
    for name, section in (("off", "dpo: null\n"), ("old", "")):
        folder = tmp_path / name
        (folder / "sft").mkdir(parents=True)
        (folder / "sft" / "result.json").write_bytes((run.path / "sft" / "result.json").read_bytes())
        (folder / "config.yaml").write_text(before + section + rest, encoding="utf-8")
        assert [stage.name for stage in load(folder).unfinished] == ["reward", "policy", "evaluate"]


def test_other_settings_of_dpo_repeat_it_and_the_evaluation_alone(run: RunDir, cache: Path) -> None:
    times = {stage: (run.path / stage / "result.json").stat().st_mtime_ns for stage in ALL_STAGES}
    align(run.path, cache, "dpo={beta: 0.2}", "policy.steps=1")
    now = {stage: (run.path / stage / "result.json").stat().st_mtime_ns for stage in ALL_STAGES}
    assert [stage for stage in ALL_STAGES if now[stage] != times[stage]] == ["dpo", "evaluate"]


def test_one_can_talk_to_it(run: RunDir, run_align: Align, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["hello", "/quit"])
    monkeypatch.setattr("rich.console.Console.input", lambda self, *_, **__: next(lines))
    code, out, _ = run_align("chat", str(run.path), "--role", "dpo", "--max-new-tokens", "3")
    assert code == 0
    assert "dpo" in out


def test_a_pair_of_judges_that_needs_it_says_so() -> None:
    smoke, asked = ROOT / "configs" / "smoke.yaml", "evaluate.judge_pairs=[policy_vs_dpo]"
    with pytest.raises(ConfigError, match=r"'policy_vs_dpo' needs a dpo section"):
        load_config(smoke, [asked])
    assert load_config(smoke, [asked, "dpo={}"]).dpo is not None


def test_the_plan_knows_it(run_align: Align, cache: Path, at_root: Path) -> None:
    arguments = ["plan", "configs/smoke.yaml", "--json", f"model.cache_dir={cache}"]
    assert '"dpo"' not in run_align(*arguments)[1]
    assert '"dpo"' in run_align(*arguments, "dpo={}")[1]
