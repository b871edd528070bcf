"""Who beats whom, as the report's tables tell it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import win_tables
from pipeline.report.load import Run, load

from .builder import build


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return changed(tmp_path)


def changed(folder: Path, **metrics: Any) -> Run:
    path = build(folder / "run", stages=("evaluate",), prompts=200)
    file = path / "evaluate" / "result.json"
    result = json.loads(file.read_text())
    result["metrics"] = {key: value for key, value in (result["metrics"] | metrics).items() if value is not None}
    file.write_text(json.dumps(result))
    return load(path)


def plain(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.replace("\u00a0", " ") for cell in row] for row in rows]


def test_a_win_that_is_one_of_many_chances_is_told_apart(tmp_path: Path) -> None:
    key = "win_rate.policy_vs_best_of_n"
    table = win_tables.win_rates(changed(tmp_path, **{f"{key}_low": 0.51, f"{key}_p_holm": 0.09}))
    assert table is not None
    verdicts = {row[0]: row[-1] for row in table.rows}
    assert verdicts["policy vs best of 4"] == "better by itself"
    assert verdicts["policy vs SFT"] == "better"


def test_a_rate_at_equal_length_that_rests_on_no_overlap_stands_in_brackets(tmp_path: Path) -> None:
    table = win_tables.win_rates(changed(tmp_path, **{"win_rate.sft_vs_base_length_overlap": 0.01}))
    assert table is not None
    told = {row[0]: row[4] for row in table.rows}
    assert told["SFT vs base"].startswith("(")
    assert not told["policy vs SFT"].startswith("(")


def test_without_length_control_there_is_no_such_column(tmp_path: Path) -> None:
    pairs = ("policy_vs_sft", "sft_vs_base", "policy_vs_best_of_n", "best_of_n_vs_sft")
    table = win_tables.win_rates(changed(tmp_path, **{f"win_rate.{pair}_length_controlled": None for pair in pairs}))
    assert table is not None
    assert "At equal length" not in table.heads
    assert {len(row) for row in table.rows} == {len(table.heads)}


def test_standing_has_a_row_and_a_column_for_everybody(run: Run) -> None:
    table = win_tables.standing(run)
    assert table is not None
    assert table.heads == ["System", "Rating", "over policy", "over SFT"]
    assert plain(table.rows)[0][:3] == ["policy", "1,190 [1,130, 1,255]", "–"]
    assert plain(table.rows)[1] == ["SFT", "1,000 [1,000, 1,000]", "–", "–"]


def test_who_won_everything_is_named(tmp_path: Path) -> None:
    row = {"system": "policy", "rating": 1900.0, "low": 1500.0, "high": 2400.0, "caveat": "won everything", "over": {}}
    table = win_tables.standing(changed(tmp_path, standing=[row]))
    assert table is not None
    assert "policy: won everything." in table.caption


def test_slices_and_differences(run: Run) -> None:
    slices, differences = win_tables.slices(run), win_tables.differences(run)
    assert slices is not None
    assert differences is not None
    assert plain(slices.rows) == [["category: cooking", "80 %", "[69, 88]", "67"]]
    assert plain(differences.rows) == [["best of 4", "+6", "[−3, 15]", "0.190"]]
