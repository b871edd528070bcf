"""The table of judges: one row each, and nothing where there are none."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.report import win_tables
from pipeline.report.html import render
from pipeline.report.load import load

from .builder import build


def rated(name: str, rate: float, low: float, high: float) -> dict[str, Any]:
    values = {"": rate, "_low": low, "_high": high, "_wins": 6, "_ties": 1, "_losses": 3, "_n": 10}
    return {f"judges.{name}.win_rate.policy_vs_sft{suffix}": value for suffix, value in values.items()}


FIGURES: dict[str, Any] = {
    **rated("gpt", 0.65, 0.4, 0.84),
    "judges.gpt.calls": 20,
    "judges.gpt.unparsable": 3,
    "judges.gpt.consistency": 0.75,
    "judges.gpt.first_position": 0.6,
    "judges.gpt.cost": 0.125,
    "judges.gpt.agreement_n": 8,
    "judges.gpt.agreement": 0.875,
    "judges.gpt.kappa": -0.125,
    "judges.mute.agreement_n": 0,
    "judges.mute.calls": 20,
    "judges.mute.unparsable": 20,
    **rated("control", 0.5, 0.3, 0.7),
    "judges.control.agreement_n": 0,
}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    folder = build(tmp_path / "run", prompts=10, steps=3, metrics=FIGURES)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["evaluate"]["judges"] = {"gpt": {"kind": "llm"}, "control": {"kind": "length", "prefer": "longer"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return load(folder)


def test_one_row_a_judge(run: Any) -> None:
    table = win_tables.judges(run)
    assert table is not None
    assert "on policy over SFT" in table.caption
    rows = [[cell.replace("\u00a0", " ") for cell in row] for row in table.rows]
    assert rows == [
        ["gpt (llm)", "65 %", "[40, 84]", "88 %", "−0.12", "75 %", "60 %", "3 of 20", "0.12"],
        ["mute", "–", "–", "–", "–", "–", "–", "20 of 20", "–"],
        ["control (length)", "50 %", "[30, 70]", "–", "–", "–", "–", "–", "–"],
    ]
    assert all(len(row) == len(table.heads) for row in table.rows)


def test_the_page_shows_it_and_the_headline_stays_the_runs_own(run: Any, tmp_path: Path) -> None:
    page = render(run)
    assert "gpt (llm)" in page
    plain = render(load(build(tmp_path / "plain" / "run", prompts=10, steps=3)))
    assert "κ" not in plain
    headline = [text.split("<h1>")[1].split("</h1>")[0] for text in (page, plain)]
    assert headline[0] == headline[1]


PEOPLE: dict[str, Any] = {
    "judges.human.annotators": 2,
    "judges.human.compared": 7,
    "judges.human.comparisons": 10,
    "judges.human.gone": 0,
    "judges.human.against.judge.n": 6,
    **{f"judges.human.against.judge.agreement{part}": v for part, v in (("", 0.75), ("_low", 0.4), ("_high", 0.9))},
    **{f"judges.human.against.judge.kappa{part}": v for part, v in (("", 0.5), ("_low", -0.1), ("_high", 1.0))},
    "judges.human.against.gpt.n": 0,
}


def test_people_beside_the_judges(tmp_path: Path) -> None:
    table = win_tables.people(load(build(tmp_path / "run", prompts=10, steps=3, metrics=FIGURES | PEOPLE)))
    assert table is not None
    assert "2 people compared 7 of 10 pairs of answers." in table.caption
    assert "have changed" not in table.caption
    rows = [[cell.replace("\u00a0", " ").replace("\u202f", " ") for cell in row] for row in table.rows]
    assert rows == [["judge", "75 % [40, 90]", "0.50 [−0.10, 1.00]", "6"], ["gpt", "–", "–", "0"]]
    changed = load(build(tmp_path / "new" / "run", prompts=10, steps=3, metrics=PEOPLE | {"judges.human.gone": 3}))
    assert "3 more that were compared have changed since, and count for nothing." in getattr(
        win_tables.people(changed), "caption", ""
    )
    assert win_tables.people(load(build(tmp_path / "plain" / "run", prompts=10, steps=3, metrics=FIGURES))) is None
