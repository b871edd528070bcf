"""configs/gsm8k.yaml on a tiny model and rows of our own: question and answer, the answer's number behind ####."""

import json
from pathlib import Path

import pytest

from pipeline.data import load
from pipeline.evaluation.verifiers import gsm8k
from pipeline.rundir import RunDir, read_jsonl, summary
from tests.conftest import Align

# Written for this test.
ROWS = [
    {
        "question": f"A baker fills {trays} trays with {rolls} rolls each and eats 2. How many rolls are left?",
        "answer": f"There were <<{trays}*{rolls}={trays * rolls}>>{trays * rolls} rolls.\n#### {trays * rolls - 2}",
    }
    for trays in range(2, 6)
    for rolls in range(4, 8)
]
SMALL = (
    "model.name=tiny",
    "lora={r: 4, alpha: 8}",
    "sft.max_length=256",
    "reward={data: {source: data/quickstart/preferences.jsonl, limit: 48}, epochs: 1, calibration_samples: 8}",
    "policy.steps=2",
    "policy.prompts_per_step=2",
    "policy.group_size=2",
    "policy.minibatch_size=4",
    "policy.microbatch_size=4",
    "policy.sampling.max_new_tokens=12",
    "evaluate.best_of=2",
    "gates.skip=[sft_ends, reward_beats_chance, reward_beats_length]",
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
    assert figures["policy.reward.correct"] == figures["policy.score"] == 0.0  # a random model is never right
    for system in ("base", "sft", "policy", "best_of_n"):
        assert figures[f"evaluate.rewarded.correct.{system}"] == 0.0
        assert (
            0
            == figures[f"evaluate.rewarded.correct.{system}_low"]
            < figures[f"evaluate.rewarded.correct.{system}_high"]
        )
    assert all("reward/correct" in row for row in read_jsonl(folder / "policy" / "metrics.jsonl"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "pipeline.evaluation.verifiers:gsm8k" in page
    assert "What the functions give" in page


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
    code, _, err = run_align("run", "configs/gsm8k.yaml", *overrides, "evaluate.rewarded=false")
    assert code == 0, err
