"""The card's page and its words: whole, hostile, without what isn't known, and never more than the figures allow."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.card import content, write_card
from pipeline.report.card_charts import best_of_n, calibration
from pipeline.report.card_wording import headline, notes, scorers, subset_names, turning_points

from .builder import confidence
from .test_report import HOSTILE, Page


def figures(**changes: Any) -> dict[str, Any]:
    """A whole card, with some figures changed."""
    error = {"where": "pairs.jsonl:3", "subset": "chat", "prompt": HOSTILE, "chosen": "Yes.", "rejected": HOSTILE}
    found: dict[str, Any] = {
        **{"adapter": "reward", "data": "/home/somebody/pairs.jsonl", "by": "subset", "prompts": 90, "left_out": 0},
        **{"truncated": 0.0, "random_baseline": 0.5, "score_batch_error": 3e-6, "n": 120},
        **{"accuracy": 0.85, "accuracy_low": 0.775, "accuracy_high": 0.903, "length_baseline": 0.592},
        **{"longer_wins": 0.408, "logprob_baseline": 0.61, **confidence()},
        **{"subset_mean": 0.8, "subset_mean_weighted": 0.85},
        **{"agreement.judge.equal_orders": 0.9, "agreement.judge.correlation": 0.83},
        "hardest": [error | {"chosen_score": -1.5, "rejected_score": 2.0}],
        "best_of_n": [
            {"n": n, "kl": 0.1 * n, "reward": 0.2 * n, "judge": 0.1 * n, "reward_se": 0.1, "judge_se": 0.1}
            for n in range(1, 8)
        ],
    }
    for name, share in (("chat", 0.9), (HOSTILE, 0.7)):
        parts = {"accuracy": share, "accuracy_low": share - 0.1, "accuracy_high": share + 0.05, "n": 60}
        parts |= {"length_baseline": 0.55, "logprob_baseline": 0.6, "ece": 0.08}
        found |= {f"subsets.{name}.{key}": value for key, value in parts.items()}
    return found | changes


def test_the_page_is_whole_and_keeps_to_itself(tmp_path: Path) -> None:
    path = write_card(figures(), tmp_path / "run", tmp_path / "card.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.misnested
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert page.tags.count("script") == 1  # it sorts tables
    assert "img" not in page.tags
    assert "&lt;script&gt;alert(1)" in text
    assert not set(text) & set("\x00\x1b\ud800")
    assert "somebody" not in text
    assert "#fe0" not in text
    charts = re.findall(r'<svg [^>]*aria-label="([^"]{20,})"', text)
    assert len(charts) == 5
    assert write_card(figures(), tmp_path / "run", tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    known = {key: value for key, value in figures().items() if not key.startswith(("subset", "agreement", "best_of"))}
    known = {key: value for key, value in known.items() if "temperature" not in key}
    text = write_card(known | {"by": None, "hardest": []}, tmp_path, tmp_path / "card.html").read_text("utf-8")
    for part in ("By ", "Best of n", "Best temperature", "Orders as the judge", "hardest errors"):
        assert part not in text


def test_very_many_subsets_are_a_table_and_no_chart() -> None:
    many = {f"subsets.{i}.{key}": 0.5 for i in range(40) for key in figures() if key in ("accuracy", "length_baseline")}
    few = content(figures(), "run")["charts"]
    parts = {f"subsets.{i}.{key}": 1 for i in range(40) for key in ("n", "accuracy_low", "accuracy_high", "ece")}
    parts |= {f"subsets.{i}.logprob_baseline": 0.5 for i in range(40)}
    shown = content(figures() | many | parts, "run")
    assert len(shown["charts"]) == len(few) - 1
    assert len(shown["tables"][1].rows) == 42


def test_where_best_of_n_turns_is_told(tmp_path: Path) -> None:
    curves = {"best_of_n_curve.judge.peak_kl": 1.2, "best_of_n_curve.judge.peak_inside": True}
    curves |= {"best_of_n_curve.judge.caveats": [], "best_of_n_curve.reward.caveats": ["it has no peak"]}
    told = "The reward model's fitted curve: it has no peak. The judge's fitted curve: it peaks at KL 1.2."
    assert turning_points(figures(**curves)) == told
    assert turning_points(figures()) == ""
    rows = [row | {"reward_fitted": 0.0, "judge_fitted": 0.1} for row in figures()["best_of_n"]]
    plain, fitted = (best_of_n(found, ["reward", "judge"]).svg for found in (figures()["best_of_n"], rows))
    assert fitted.count("stroke-dasharray") == plain.count("stroke-dasharray") + 2
    text = write_card(figures(**curves), tmp_path, tmp_path / "card.html").read_text("utf-8")
    assert "peaks at KL 1.2" in text


def test_the_headline() -> None:
    plain = headline(figures()).replace("\u00a0", " ")
    assert plain == "The reward model orders 85.0 % [77.5, 90.3] of 120 pairs right; “the shorter wins” 59.2 %."
    assert headline(figures(adapter="judge")).startswith("The judge orders")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"length_baseline": 0.8}, "than length alone, which orders 80.0"),
        ({"logprob_baseline": 0.775}, "than the base model's log-probabilities alone"),
        ({"seen_prompts": 0.25}, "25 % of the pairs are to prompts that it was trained on"),
        ({"truncated": 0.3}, "30 % of the pairs reach the limit"),
        ({"left_out": 3}, "3 rows couldn't be used"),
        ({"score_batch_error": 0.2}, "moves by up to 0.200 deviations"),
    ],
)
def test_notes_appear_when_they_apply(change: dict[str, Any], part: str) -> None:
    assert notes(figures()) == []
    (found,) = notes(figures(**change))
    assert part in found.replace("\u00a0", " ")


def test_names_with_dots_are_names() -> None:
    assert subset_names({"subsets.a.b.accuracy": 1.0, "subsets.a.b.accuracy_low": 0.9, "accuracy": 1.0}) == ["a.b"]
    assert scorers({"n": 1, "kl": 0.0, "judge": 1.0, "reward": 1.0, "judge_se": 0.1, "reward_se": 0.1}) == [
        "judge",
        "reward",
    ]


def test_the_calibration_chart_speaks() -> None:
    spoken = calibration({"reward": confidence()["calibration"]}).replace("\u00a0", " ")
    assert "reward model: claims 55 %, right 50 %, claims 65 %, right 68 %" in spoken


def test_neither_torch_nor_numpy_models_are_imported() -> None:
    code = (
        "import sys, pipeline.report.card\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
