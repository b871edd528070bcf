"""Runs side by side: what is claimed, when nothing is, and what is shown of whole, partial and unlike runs."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.report.comparability import doubts, entries, verdict
from pipeline.report.compare import compared_figures, write_comparison
from pipeline.report.comparison_tables import HEADS, settings, side_by_side
from pipeline.report.overlay import APART, spread
from pipeline.report.shared_answers import shared
from pipeline.rundir import RunError

from .builder import build, change, configure, write_rows
from .test_report import HOSTILE, Page, plant_hostile_texts


def several(root: Path, *rates: float, **options: Any) -> list[Path]:
    """Runs a, b, c, …, whose policies win so often against SFT."""
    return [
        build(root / name, policy_wins=rate, steps=4, **options)
        for name, rate in zip("abcdefghijkl", rates, strict=False)
    ]


def sentence(paths: Sequence[Path]) -> str:
    return verdict(entries(paths)).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        (
            (0.6, 0.8),
            "b wins most: its policy wins against SFT on 80 % [74, 85] of 200 prompts; then a (60 % [53, 67]).",
        ),
        (
            (0.8, 0.7, 0.3),
            "Not shown which policy is best: a wins most against SFT, on 80 % [74, 85] of 200 prompts, but its "
            "interval overlaps that of b (70 % [63, 76]).",
        ),
        (
            (0.54, 0.3),
            "a wins most: its policy wins against SFT on 54 % [47, 61] of 200 prompts; then b (30 % [24, 37]); "
            "no policy is shown to beat SFT.",
        ),
        (
            (0.8, 0.6, 0.6, 0.6, 0.6),
            "a wins most: its policy wins against SFT on 80 % [74, 85] of 200 prompts; then b (60 % [53, 67]), "
            "c (60 % [53, 67]) and 2 more.",
        ),
    ],
)  # fmt: skip
def test_the_headline_claims_what_intervals_allow(tmp_path: Path, rates: tuple[float, ...], told: str) -> None:
    assert sentence(several(tmp_path, *rates, prompts=200)) == told


def test_a_headline_without_two_evaluations(tmp_path: Path) -> None:
    first, second = several(tmp_path, 0.8, 0.8)
    (second / "evaluate" / "result.json").unlink()
    assert (
        sentence([first, second]) == "Only a has held its policy against SFT: it wins on 80 % [74, 85] of 200 prompts."
    )
    (first / "evaluate" / "result.json").unlink()
    assert sentence([first, second]) == "No comparison yet: no run has held its policy against SFT."


def other_prompts(run: Path) -> None:
    change(run, "evaluate", data={"evaluate": {"sha256": "0" * 64, "used": 200}})


def fewer_prompts(run: Path) -> None:
    account = json.loads((run / "evaluate" / "result.json").read_text())["data"]["evaluate"]
    change(run, "evaluate", data={"evaluate": {**account, "used": 100}})


@pytest.mark.parametrize(
    ("differ", "what", "spoils"),
    [
        (other_prompts, "evaluation prompts", True),
        (fewer_prompts, "evaluation prompts", True),
        (lambda run: change(run, "reward", fingerprint="other"), "reward model and judge", True),
        (lambda run: change(run, "evaluate", metrics={"judge": "reward"}), "kind of judge", True),
        (lambda run: change(run, "sft", fingerprint="other"), "SFT model", True),
        (lambda run: configure(run, evaluate={"sampling": {"temperature": 1.0}}), "sampling", True),
        (lambda run: change(run, "evaluate", environment={"device": "cuda"}), "machine", False),
    ],
)
def test_what_stands_against_a_comparison_is_told(
    tmp_path: Path, differ: Callable[[Path], None], what: str, spoils: bool
) -> None:
    paths = several(tmp_path, 0.9, 0.3, 0.3)
    assert doubts(entries(paths)) == []
    differ(paths[1])
    (found,) = doubts(entries(paths))
    assert found.text.startswith(f"Not the same {what} (a, c | b): ")
    assert found.spoils is spoils
    assert sentence(paths).startswith(
        "Not shown which policy is best: the runs weren't measured alike" if spoils else "a wins"
    )


def test_settings_that_only_the_unevaluated_share_spoil_nothing(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.9, 0.3, 0.3)
    (paths[2] / "evaluate" / "result.json").unlink()
    change(paths[2], "sft", fingerprint="other")
    assert len(doubts(entries(paths))) == 1
    assert sentence(paths).startswith("a wins most")


def test_the_table_has_a_row_a_run_and_dashes_where_a_run_has_not_got(tmp_path: Path) -> None:
    whole, part = several(tmp_path, 0.78, 0.5)
    for stage in ("policy", "evaluate"):
        (part / stage / "result.json").unlink()
    change(whole, "sft", metrics={"loss": 3.0})  # worse than before training: a closed gate
    table = side_by_side(entries([whole, part]))
    first, second = ([cell.replace("\u00a0", " ") for cell in row] for row in table.rows)
    assert dict(zip(HEADS, first, strict=True)) == {
        "Run": "1 · a",
        "Model": "tiny",
        "Algorithm": "ppo",
        "Seed": "0",
        "Policy beats SFT": "78 % [72, 83]",
        "SFT beats base": "90 % [85, 93]",
        "KL": "6.1",
        "Tokens": "32.1",
        "Ends by itself": "98 %",
        "Reward accuracy": "85.0 %",
        "Judge accuracy": "82.5 %",
        "Learns": "9,765,441",
        "Time": "31 min 20 s",
        "Peak memory": "2.1 GB",
        "Gates passed over": "sft_learns",
    }
    assert second[4:9] == ["–"] * 5
    assert second[9:] == ["85.0 %", "82.5 %", "4,882,432", "9 min 33 s", "1.6 GB", "none"]


def test_only_settings_that_differ_are_shown(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.8, 0.8)
    assert settings(entries(paths)) is None  # their folders differ, and that doesn't count
    sampling = {"temperature": 0.7, "max_new_tokens": 64}
    configure(
        paths[1],
        seed=1,
        policy={"algorithm": "rloo", "steps": 4, "sampling": sampling},
        extra={"on": True, "list": [1, "ä"]},
    )
    table = settings(entries(paths))
    assert table is not None
    assert table.heads == ["Setting", "1 · a", "2 · b"]
    assert table.rows == [
        ["seed", "0", "1"],
        ["policy.algorithm", "ppo", "rloo"],
        ["extra.on", "–", "true"],
        ["extra.list", "–", '[1, "ä"]'],
    ]


def test_answers_are_to_prompts_that_all_share(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.8, 0.8, prompts=5)

    def answer(text: str, judge: float) -> dict[str, Any]:
        return {"policy": {"text": text, "tokens": 3, "stopped": True, "judge": judge}}

    write_rows(
        paths[0] / "evaluate" / "samples.jsonl", [{"prompt": p, "answers": answer(f"a to {p}", 1.0)} for p in "xyz"]
    )
    write_rows(
        paths[1] / "evaluate" / "samples.jsonl", [{"prompt": p, "answers": answer(f"b to {p}", 2.0)} for p in "zwx"]
    )
    found = shared(entries(paths), same_judge=True)
    assert found is not None
    assert [sample.prompt for sample in found.first] == ["x", "z"]
    assert [answer.pieces[0].text for answer in found.first[1].answers] == ["a to z", "b to z"]
    assert [answer.winner for answer in found.first[0].answers] == [False, True]
    blind = shared(entries(paths), same_judge=False)
    assert blind is not None
    assert not any(answer.winner for sample in blind.first for answer in sample.answers)
    write_rows(paths[1] / "evaluate" / "samples.jsonl", [{"prompt": "w", "answers": answer("b", 2.0)}])
    write_comparison(paths, tmp_path / "page.html")
    assert "The runs have answered no prompt in common." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_names_are_as_long_as_they_must_be(tmp_path: Path) -> None:
    paths = [build(tmp_path / folder / "run", prompts=5, steps=2) for folder in ("one", "two")]
    assert [entry.label for entry in entries(paths)] == ["1 · one/run", "2 · two/run"]


def test_the_page_is_whole_quiet_and_the_same_each_time(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.6, 0.8, prompts=20)
    write_comparison(paths, tmp_path / "one.html")
    write_comparison(paths, tmp_path / "two.html")
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.misnested
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target.startswith("#")} <= set(page.ids)
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert "http" not in text.replace("http-equiv", "")
    titles = re.findall("<figcaption><strong>(.*?)</strong>", text)
    assert titles == ["Policy against SFT", "Reward score", "Judge’s score", "KL from SFT", "Score against distance"]
    charts = re.findall(r"<svg [^>]*>", text)
    assert all(re.search(r'aria-label="[^"]*1 · a[^"]*2 · b', chart) for chart in charts)
    assert "#fe0" not in text
    assert "var(--run-2)" in text


def test_nine_runs_and_unfinished_ones(tmp_path: Path) -> None:
    paths = several(tmp_path, *[0.5] * 9, prompts=4)
    build(tmp_path / "early", stages=("sft",))
    write_comparison([*paths, tmp_path / "early"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>early isn’t finished:</b> reward model, policy, evaluation." in text
    assert '<li class="run-8">8 · h</li>\n<li class="run-1">9 · i</li>' in text  # numbers tell them apart


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.8, 0.8, prompts=5)
    for path in paths:
        plant_hostile_texts(path)
    configure(paths[0], policy={"algorithm": HOSTILE.replace("\ud800", "")})
    write_comparison(paths, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not page.misnested
    assert "&lt;script&gt;alert(1)" in text


def test_the_figures_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = several(tmp_path, 0.8, 0.6)
    (second / "evaluate" / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["compare", str(first), str(second), "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found == compared_figures([first, second])
    assert found["runs"][0]["evaluate.win_rate.policy_vs_sft"] == 0.8
    assert found["runs"][0]["reward.judge_accuracy"] == 0.825
    assert "evaluate.kl" not in found["runs"][1]
    assert found["runs"][1]["unfinished"] == ["evaluate"]
    assert not (tmp_path / "compare.html").exists()


def test_the_command_writes_where_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [str(path) for path in several(tmp_path, 0.9, 0.6, prompts=5)]
    monkeypatch.chdir(tmp_path)
    for options, name in (([], "compare.html"), (["--out", "mine.html"], "mine.html")):
        with pytest.raises(SystemExit, match="0"):
            main(["compare", *runs, *options])
        out, err = capsys.readouterr()
        assert out.startswith("Not shown which policy is best")
        assert err == f"comparison: {name}\n"
        assert (tmp_path / name).read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "give two or more run folders"),
        (["a", "b/../a"], "a is given twice"),
        (["a", "nowhere"], "there is no run folder"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path, given: list[str], message: str) -> None:
    several(tmp_path, 0.8, 0.8, prompts=5)
    with pytest.raises(RunError, match=message):
        write_comparison([tmp_path / name for name in given], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_numbers_at_the_ends_of_lines_keep_apart() -> None:
    assert spread([0.1, 0.5, 0.9]) == [0.1, 0.5, 0.9]
    for heights in ([0.5] * 8, [0.98, 0.99, 1.0], [0.2, 0.21, 0.9, 0.97, 0.99]):
        placed = spread(heights)
        assert all(b - a >= APART - 1e-9 for a, b in pairwise(placed))
        assert max(placed) <= 1.0


def test_neither_torch_nor_numpy_s_friends_are_imported(tmp_path: Path) -> None:
    paths = several(tmp_path, 0.8, 0.8, prompts=5)
    code = (
        "import sys; from pathlib import Path; from pipeline.report.compare import write_comparison\n"
        f"write_comparison([Path(p) for p in {list(map(str, paths))!r}], Path({str(tmp_path / 'page.html')!r}))\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
