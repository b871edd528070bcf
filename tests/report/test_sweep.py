"""The sweep's page: what it claims, what it draws, and the picture in real colours."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.report.sweep import cautions, headline, tracks, write_frontier
from pipeline.rundir import RunError, read_jsonl

from .builder import build, write_rows
from .test_report import Page

WIN = "evaluate.win_rate.policy_vs_sft"
VALUES = (0.02, 0.05, 0.2)


def sweep(**changes: Any) -> dict[str, Any]:
    """sweep.json of three prices of KL, the middle one the best."""
    ends = {0.02: (9.0, 0.9, 0.66), 0.05: (5.0, 1.1, 0.78), 0.2: (1.0, 0.5, 0.58)}
    runs = []
    for value, (kl, judge, rate) in ends.items():
        figures = {"evaluate.kl": kl, "evaluate.judge_score.policy": judge, "evaluate.reward_score.policy": kl / 4}
        figures |= {WIN: rate, f"{WIN}_low": rate - 0.06, f"{WIN}_high": rate + 0.05, "total_seconds": 100.0}
        shared = {} if value == 0.02 else {"sft": "policy.kl_coef=0.02", "reward": "policy.kl_coef=0.02"}
        name = f"policy.kl_coef={value}"
        runs.append({"run": name, "settings": {"policy.kl_coef": value}, "shared": shared, "failed": None})
        runs[-1]["figures"] = figures
    curve = {"peak_kl": 4.0, "peak_inside": True, "line": [[0.0, 0.0], [4.0, 1.0], [9.0, 0.8]], "caveats": []}
    best = {"run": "policy.kl_coef=0.05", "kl": 5.0, "score": 1.1, "inside": True}
    found = {"swept": {"policy.kl_coef": list(VALUES)}, "runs": runs, "told_by": "judge", "curve": curve, "best": best}
    return found | changes


def folder(root: Path, found: dict[str, Any]) -> Path:
    """The sweep's folder: its runs go as far as their ends say."""
    for run in found["runs"]:
        path = build(root / run["run"], prompts=5)
        rows = read_jsonl(path / "policy" / "metrics.jsonl")
        scale = run["figures"].get("evaluate.kl", 1.0) / 6
        changed = [row | {"objective/kl": row["objective/kl"] * scale} for row in rows]
        write_rows(path / "policy" / "metrics.jsonl", changed)
    (root / "sweep.json").write_text(json.dumps(found), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("sweep"), sweep())


def test_the_page_is_whole_and_keeps_to_itself(whole: Path) -> None:
    text = write_frontier(whole).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.misnested
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert "#fe" not in re.sub(r"#fe[0-9a-f]{2}\b(?!a7)", "", text).replace("&#fe", "")
    first, second = re.findall(r'<svg [^>]*aria-label="([^"]{20,})"', text)
    assert first.startswith("Score against the square root of KL, one line for each of 3 runs: kl_coef 0.02 ends at")
    assert "kl_coef 0.05: 78 % [72, 83] at 2.24" in second.replace("\u00a0", " ")
    assert "Its fitted curve: it peaks at KL 4.0." in text
    assert "Told by the held-out judge" in text
    assert write_frontier(whole).read_text(encoding="utf-8") == text


def test_the_picture_has_the_light_pages_colours(whole: Path) -> None:
    write_frontier(whole)
    with Image.open(whole / "frontier.png") as picture:
        assert picture.width == 1020  # 340 points at three pixels
        colors = {color[:3] for _, color in picture.convert("RGB").getcolors(1 << 24)}
    assert (0xFB, 0xFA, 0xF8) in colors  # the paper
    for ramp in ((0xA9, 0xA0, 0xCC), (0xC2, 0x57, 0x1A)):  # from the least value to the largest
        assert ramp in colors
    assert not [color for color in colors if color[0] == 0xFE and color[2] == 0xA7]


def test_the_headline_names_the_best() -> None:
    plain = headline(sweep()).replace("\u00a0", " ")
    assert plain == "kl_coef 0.05 ends best: score 1.10 at KL 5.0, 78 % [72, 83] against SFT."
    assert headline(sweep(best=None)) == "No run of 3 has been evaluated yet."
    assert cautions(sweep()) == []


def changed(**figures: Any) -> dict[str, Any]:
    """The first run with other figures."""
    found = sweep()
    found["runs"][0]["figures"] |= figures
    return found


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (sweep(best={"run": "policy.kl_coef=0.05", "kl": 5.0, "score": 1.1, "inside": False}), "try values beyond"),
        (sweep(told_by="reward"), "no held-out judge"),
        (changed(**{f"{WIN}_high": 0.73}), "overlaps with those of 1 of the 2 others"),
        (
            changed(**{"policy.stopped_by": "over_optimisation"}),
            "was stopped by the alarm over optimisation",
        ),
    ],
)
def test_cautions_appear_when_they_apply(found: dict[str, Any], part: str) -> None:
    (sentence,) = cautions(found)
    assert part in sentence


def test_a_run_that_failed_is_named_and_the_others_drawn(tmp_path: Path) -> None:
    found = sweep()
    found["runs"][1] |= {"failed": "gate first_ratio: …", "figures": {}, "shared": {}}
    found["best"] = {"run": "policy.kl_coef=0.02", "kl": 9.0, "score": 0.9, "inside": False}
    root = folder(tmp_path, found)
    for stage in ("policy", "evaluate"):
        for name in ("metrics.jsonl", "result.json"):
            (root / "policy.kl_coef=0.05" / stage / name).unlink(missing_ok=True)
    text = write_frontier(root).read_text(encoding="utf-8")
    assert "kl_coef 0.05 can&#39;t go on: gate first_ratio" in text
    assert "one line for each of 2 runs" in text


def test_several_keys_and_words_have_colours_too(tmp_path: Path) -> None:
    found = sweep(swept={"policy.algorithm": ["ppo", "rloo"], "seed": [0, 1]})
    for run, settings in zip(found["runs"], ({"policy.algorithm": "ppo", "seed": s} for s in (0, 1, 2)), strict=True):
        run["settings"] = settings
    text = write_frontier(folder(tmp_path, found)).read_text(encoding="utf-8")
    assert "algorithm ppo, seed 1 ends best" in text
    assert "var(--phase-1)" in text
    assert "var(--phase-3)" in text


def test_colours_follow_the_values_whatever_their_order(whole: Path) -> None:
    mixed = sweep(swept={"policy.kl_coef": [0.2, 0.02, 0.05]})
    plain, turned = ({track.label: track.color for track in tracks(whole, found)} for found in (sweep(), mixed))
    assert plain == turned
    assert len(set(plain.values())) == 3


def test_without_a_sweep_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no sweep"):
        write_frontier(tmp_path)
    (tmp_path / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="can't be read"):
        write_frontier(tmp_path)
