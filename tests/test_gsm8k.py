"""configs/gsm8k.yaml on a tiny model and rows of our own: question and answer, the answer's number behind ####."""

import json
from pathlib import Path

import pytest

from pipeline.config import ConfigError, load_config
from pipeline.data import load
from pipeline.evaluation.verifiers import gsm8k
from pipeline.report.load import load as load_run
from pipeline.rundir import RunDir, read_jsonl, summary
from tests.conftest import ROOT, Align

# Written for this test.
ROWS = [
    {
        "question": f"A baker fills {trays} trays with {rolls} rolls each and eats 2. How many rolls are left?",
        "answer": f"There were <<{trays}*{rolls}={trays * rolls}>>{trays * rolls} rolls.\n#### {trays * rolls - 2}",
    }
    for trays in range(211, 215)  # five digits: a random model doesn't hit upon them
    for rolls in range(137, 141)
]
SMALL = (
    "model.name=tiny",
    "lora={r: 4, alpha: 8}",
    "sft.max_length=256",
    "policy.steps=2",
    "policy.prompts_per_step=2",
    "policy.group_size=2",
    "policy.minibatch_size=4",
    "policy.microbatch_size=4",
    "policy.sampling.max_new_tokens=12",
    "evaluate.best_of=2",
    "logging.progress=false",
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "maths.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def test_a_prompt_keeps_the_answer_that_the_reward_looks_into(rows: Path) -> None:
    for prompt, row in zip(load(str(rows), "prompts").rows, ROWS, strict=True):
        assert prompt.messages[-1]["content"] == row["question"]
        assert prompt.row == row
        assert prompt.meta == {}
        assert gsm8k(row["question"], row["answer"], prompt.row) == 1.0


def test_the_config_runs_from_end_to_end(
    rows: Path, tmp_path: Path, cache: Path, run_align: Align, at_root: Path
) -> None:
    sources = [f"{name}.data={{source: {rows}}}" for name in ("sft", "policy", "evaluate")]
    folder = tmp_path / "run"
    overrides = [*SMALL, *sources, f"run_dir={folder}", f"model.cache_dir={cache}"]
    code, _, err = run_align("run", "configs/gsm8k.yaml", *overrides)
    assert code == 0, err
    figures = summary(RunDir(folder))
    assert not (folder / "reward").exists()
    assert figures["evaluate.judge"] == "rewards"
    assert figures["evaluate.win_rate.policy_vs_sft_ties"] == 16
    assert figures["evaluate.judge_score.policy"] == 0.0
    assert figures["policy.reward.correct"] == figures["policy.score"] == 0.0  # a random model is never right
    for system in ("base", "sft", "policy", "best_of_n"):
        right = f"evaluate.rewarded.correct.{system}"
        assert figures[right] == figures[f"{right}_low"] == 0.0
        assert figures[f"{right}_high"] == pytest.approx(0.19, abs=0.02)  # of 16 prompts none: Wilson
    assert all("reward/correct" in row for row in read_jsonl(folder / "policy" / "metrics.jsonl"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "pipeline.evaluation.verifiers:gsm8k" in page
    assert "What the functions give" in page
    assert "The judge is what the policy was paid for" in page
    assert "not finished" not in page
    found = load_run(folder)
    assert list(found.stages) == ["sft", "policy", "evaluate"]
    code, _, err = run_align("reward-card", str(folder))
    assert code == 2
    assert "no finished reward stage" in " ".join(err.split())


def test_rows_that_the_function_cannot_use_stop_the_evaluation_early(
    tmp_path: Path, rows: Path, cache: Path, run_align: Align, at_root: Path
) -> None:
    """After the first system, with the row's place."""
    (tmp_path / "bare.jsonl").write_text('{"prompt": "How many?"}\n', encoding="utf-8")
    sources = [f"{name}.data={{source: {rows}}}" for name in ("sft", "policy")]
    bare = f"evaluate.data={{source: {tmp_path / 'bare.jsonl'}}}"
    overrides = [*SMALL, *sources, bare, f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}"]
    code, _, err = run_align("run", "configs/gsm8k.yaml", *overrides)
    assert code == 2
    assert "policy.rewards.correct" in err
    assert "bare.jsonl:1" in err


def test_ppo_without_a_reward_model_has_a_critic_all_the_same(
    rows: Path, tmp_path: Path, cache: Path, run_align: Align, at_root: Path
) -> None:
    sources = [f"{name}.data={{source: {rows}}}" for name in ("sft", "policy", "evaluate")]
    folder = tmp_path / "run"
    overrides = [*SMALL, *sources, f"run_dir={folder}", f"model.cache_dir={cache}", "policy.algorithm=ppo"]
    for command in ("sft", "policy"):
        code, _, err = run_align(command, "configs/gsm8k.yaml", *overrides, "policy.kl_in=reward")
        assert code == 0, err
    assert (folder / "policy" / "critic").is_dir()


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["policy.rewards={r: {model: reward}}"], "reward: is missing, and policy.rewards.r is the run's own"),
        (["policy.rewards={r: {model: runs/other}}"], "no function in policy.rewards could judge"),
        (["dpo={}"], "dpo learns from its pairs"),
        (["evaluate.judges={e: {kind: ensemble}}"], "ensemble needs reward.judges"),
    ],
)
def test_without_a_reward_section_what_needs_one_is_refused(overrides: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_config(ROOT / "configs" / "gsm8k.yaml", overrides)


def test_plan_and_data_do_without_it(rows: Path, cache: Path, run_align: Align, at_root: Path) -> None:
    sources = [f"{name}.data={{source: {rows}}}" for name in ("sft", "policy", "evaluate")]
    options = [*SMALL, *sources, f"model.cache_dir={cache}", "--json"]
    code, out, _ = run_align("plan", "configs/gsm8k.yaml", *options, "--data")
    assert (code, list(json.loads(out))) == (0, ["sft", "policy", "evaluate"])
    code, out, _ = run_align("data", "configs/gsm8k.yaml", *options)
    assert code == 0
    assert "reward" not in json.loads(out)
