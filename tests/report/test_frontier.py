"""Score against distance: who tells, where the kept weights are, and what the evaluation's systems add."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.frontier import frontier, smooth, systems
from pipeline.report.headline import cautions
from pipeline.report.load import Run, load
from pipeline.report.wording import turning_point
from pipeline.rundir import read_jsonl

from .builder import build, write_rows


def run(folder: Path, *, stage: str = "policy", **figures: Any) -> Run:
    """A run with other figures in one stage's result; None takes a figure away."""
    path = build(folder, prompts=5) if not folder.is_dir() else folder
    result = json.loads((path / stage / "result.json").read_text())
    changed = {key: value for key, value in (result["metrics"] | figures).items() if value is not None}
    (path / stage / "result.json").write_text(json.dumps(result | {"metrics": changed}))
    return load(path)


def test_both_tellers_are_drawn_and_the_judges_turn_is_told(tmp_path: Path) -> None:
    (chart,) = frontier(run(tmp_path / "run"))
    spoken = chart.svg.split('aria-label="')[1].split('"')[0]
    for part in (
        "over 30 steps",
        "told by the reward model: first step at",
        "told by the judge",
        "best of 4 at 0.80, 0.90",
    ):
        assert part in spoken
    assert "var(--reward)" in chart.svg
    assert "var(--judge)" in chart.svg
    assert chart.svg.count("stroke-dasharray") == 2  # one fitted curve each
    assert chart.look.endswith("The judge's fitted curve: it peaks at KL 4.3.")


def test_the_ring_is_at_the_step_whose_weights_were_kept(tmp_path: Path) -> None:
    rows = read_jsonl(build(tmp_path / "run", prompts=5) / "policy" / "metrics.jsonl")
    write_rows(
        tmp_path / "run" / "policy" / "metrics.jsonl", [{**row, "objective/kl": row["step"] ** 2} for row in rows]
    )
    (last,) = frontier(run(tmp_path / "run"))
    assert "kept step at 30.0," in last.svg
    (back,) = frontier(run(tmp_path / "run", returned_to=12))
    assert "kept step at 12.0," in back.svg


def test_without_a_judge_or_a_fit_the_rest_is_drawn(tmp_path: Path) -> None:
    path = build(tmp_path / "run", stages=("policy",), prompts=5)
    rows = read_jsonl(path / "policy" / "metrics.jsonl")
    for row in rows:
        del row["objective/judge"]
    write_rows(path / "policy" / "metrics.jsonl", rows)
    nothing = {f"curve.{who}.{key}": None for who in ("reward", "judge") for key in ("line", "caveats", "peak_inside")}
    (chart,) = frontier(run(path, **nothing))
    assert "told by the judge" not in chart.svg
    assert "best of" not in chart.svg
    assert "stroke-dasharray" not in chart.svg
    assert chart.look.endswith("dashed: fitted.")
    write_rows(path / "policy" / "metrics.jsonl", [])
    assert frontier(load(path)) == []


def test_systems_have_no_place_where_the_evaluation_samples_otherwise(tmp_path: Path) -> None:
    found = run(tmp_path / "run")
    assert [mark.label for mark in systems(found, "judge")] == ["SFT", "policy", "best of 4"]
    assert systems(found, "reward")[0].y == pytest.approx(0.1)
    assert systems(found, "judge")[0].y == 0.0
    found.config["evaluate"]["sampling"] = {"temperature": 1.0}
    assert systems(found, "judge") == []


def test_few_points_stay_as_they_are() -> None:
    few = [(float(i), float(i * i)) for i in range(20)]
    assert smooth(few) == few
    line = smooth([(2.0 * i, 3.0 * i) for i in range(40)])
    assert line[0] == pytest.approx((4.0, 6.0))
    assert len(line) == 36


@pytest.mark.parametrize(
    ("kl", "figures", "warned"),
    [
        (7.0, {}, True),
        (6.0, {}, False),  # less than half as much again
        (7.0, {"curve.judge.caveats": ["that it turns down isn't shown"]}, False),
        (70.0, {"curve.judge.peak_inside": False}, False),
    ],
)
def test_a_policy_past_the_judges_peak_is_named(
    tmp_path: Path, kl: float, figures: dict[str, Any], warned: bool
) -> None:
    """The builder's judge peaks at KL 4.3."""
    run(tmp_path / "run", stage="evaluate", kl=kl)
    found = " ".join(cautions(run(tmp_path / "run", **figures)))
    assert ("over-optimised" in found) == warned


def test_turning_points_in_words() -> None:
    assert turning_point("Its", {}) == ""
    assert turning_point(
        "Its", {"peak_inside": False, "peak_kl": 99.0, "caveats": ["it is fitted to 5 distances only"]}
    ) == ("Its fitted curve: it is fitted to 5 distances only.")
    both = {"peak_inside": True, "peak_kl": 2.04, "caveats": ["that it turns down isn't shown: β = 1 ± 2"]}
    assert (
        turning_point("Its", both) == "Its fitted curve: it peaks at KL 2.0; that it turns down isn't shown: β = 1 ± 2."
    )
