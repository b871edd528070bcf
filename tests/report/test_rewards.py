"""What was paid: told where it is more than the run's own reward model."""

import json
from pathlib import Path

from pipeline.report.html import write_report
from pipeline.report.load import load
from pipeline.report.rewards import curves, held_out, table
from tests.report.builder import build, change, configure, write_rows

REWARDS = {
    "correct": {"weight": 2.0, "function": "my_rewards:correct", "model": None},
    "taste": {"weight": 0.5, "function": None, "model": "/home/somebody/runs/taste"},
}


def paid(folder: Path, rewards: object) -> Path:
    run = build(folder)
    configure(run, policy={"rewards": rewards})
    file = run / "policy" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    write_rows(file, [row | {"reward/correct": 0.1, "reward/taste": 1.0, "reward/reward": 1.0} for row in rows])
    figures = {"reward.correct_first": 0.125, "reward.correct": 0.5, "reward.taste_first": 0.0, "reward.taste": -0.25}
    change(run, "policy", metrics=figures)
    return run


def test_every_term_has_a_row_and_a_curve(tmp_path: Path) -> None:
    run = load(paid(tmp_path / "run", REWARDS))
    found = table(run)
    assert found is not None
    assert found.rows == [
        ["correct", "my_rewards:correct", "2.00", "0.125", "0.500"],
        ["taste", "…/taste", "0.50", "0.000", "−0.250"],
    ]
    assert [chart.title for chart in curves(run)] == ["Reward: correct", "Reward: taste"]
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "What the policy was paid for" in page
    assert "/home/somebody" not in page
    assert page.count("Reward: taste") >= 1


def test_what_functions_give_on_held_out_prompts(tmp_path: Path) -> None:
    folder = paid(tmp_path / "run", REWARDS)
    assert held_out(load(folder)) is None
    given = {"rewarded.correct.sft": 0.25, "rewarded.correct.sft_low": 0.2, "rewarded.correct.sft_high": 0.31}
    change(folder, "evaluate", metrics=given | {"rewarded.correct.policy": 1.5})  # above 1: no interval
    found = held_out(load(folder))
    assert found is not None
    assert found.rows == [["correct", "SFT", "0.250", "[0.200, 0.310]"], ["correct", "policy", "1.500", "–"]]
    assert "0.200, 0.310" in write_report(folder).read_text(encoding="utf-8")


def test_the_default_needs_no_words(tmp_path: Path) -> None:
    run = load(paid(tmp_path / "run", {"reward": {"weight": 1.0, "function": None, "model": "reward"}}))
    assert table(run) is None
    assert curves(run) == []
