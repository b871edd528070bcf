"""The loop on the tiny model: people compare a run's answers, judge it so, and their labels train the next one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.collect.records import Answer, Label, Pair, Verdict
from pipeline.collect.store import Store, labels_path
from pipeline.rundir import RunDir, read_jsonl, summary
from tests.conftest import Align
from tests.test_pipeline import ROOT, align

TIME = "2026-01-01T00:00:00.000+00:00"


def answers(run: RunDir) -> list[Pair]:
    """Policy's and SFT's answers as pairs, the policy's first on every other prompt."""
    found = []
    for number, row in enumerate(read_jsonl(run.path / "evaluate" / "samples.jsonl")):
        sides = [Answer(row["answers"][name]["text"], name) for name in ("policy", "sft")]
        a, b = sides if number % 2 == 0 else sides[::-1]
        found.append(Pair(f"pair-{number}", ({"role": "user", "content": row["prompt"]},), a, b))
    return found


def preferring(pair: Pair, source: str) -> Verdict:
    return "a" if pair.a.source == source else "b"


def keep(run: Path, labels: list[Label]) -> None:
    store = Store(labels_path(run))
    for label in labels:
        store.add_label(label)
    store.close()


@pytest.fixture(scope="module")
def labelled(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose answers two people have compared: both prefer the policy's on 0–2, SFT's on 3; on 4 they differ; 5
    was skipped by one and tied by the other; 6 was compared when the answers were others; 7 never. One pair is
    planted."""
    folder = tmp_path_factory.mktemp("people") / "run"
    pairs = answers(align(folder, cache))
    by_person: dict[str, list[tuple[int, Verdict]]] = {
        "ann": [*((n, preferring(pairs[n], "policy")) for n in (0, 1, 2, 4)), (3, preferring(pairs[3], "sft"))],
        "ben": [*((n, preferring(pairs[n], "policy")) for n in (0, 1, 2)), (3, preferring(pairs[3], "sft"))],
    }
    by_person["ann"].append((5, "skip"))
    by_person["ben"] += [(5, "tie"), (4, preferring(pairs[4], "sft"))]
    pairs[6] = replace(pairs[6], a=Answer("What it said before.", pairs[6].a.source))
    labels = [
        Label(pairs[number], name, verdict, "a", 5.0, TIME, 3 if verdict in ("a", "b") else None)
        for name, given in by_person.items()
        for number, verdict in given
    ]
    labels.append(Label(pairs[6], "ann", "a", "b", 5.0, TIME))
    labels.append(Label(replace(pairs[7], id="planted", expected="a"), "ann", "a", "a", 5.0, TIME))
    keep(folder, labels)
    return folder


def test_people_judge_what_they_compared(labelled: Path, cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(labelled, tmp_path / "run"))
    control = "evaluate.judges.length={kind: length, prefer: longer}"
    run = align(copy, cache, "judge=human", control, command="evaluate")
    figures = summary(run)
    told = {key.removeprefix("evaluate.judges.human."): value for key, value in figures.items()}
    assert (told["annotators"], told["compared"], told["comparisons"], told["gone"]) == (2, 6, 8, 1)
    rate = "win_rate.policy_vs_sft"
    assert (told[f"{rate}_wins"], told[f"{rate}_ties"], told[f"{rate}_losses"]) == (3, 2, 1)
    assert told[rate] == pytest.approx((3 + 2 / 2) / 6)
    assert told["against.judge.n"] <= told["against.length.n"] + 4  # ties of the control aside
    rows = read_jsonl(copy / "evaluate" / "samples.jsonl")
    assert [row["verdicts"]["human"] for row in rows] == [1.0, 1.0, 1.0, 0.0, 0.5, 0.5, None, None]
    both = [row["verdicts"] for row in rows if row["verdicts"]["human"] in (0.0, 1.0)]
    same = [one["judge"] == one["human"] for one in both if one["judge"] != 0.5]
    assert told["against.judge.agreement"] == pytest.approx(sum(same) / len(same)) == told["agreement"]
    align(copy, cache, "judge=human", command="report")
    page = (copy / "report.html").read_text(encoding="utf-8")
    for part in ("human (human)", "2 people compared 6 of 8 pairs", "1 more that were compared have changed since"):
        assert part in page


def test_new_labels_repeat_the_evaluation_and_nothing_else_does(labelled: Path, cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(labelled, tmp_path / "run"))
    result = copy / "evaluate" / "result.json"
    align(copy, cache, "judge=human", command="evaluate")
    written = result.stat().st_mtime_ns
    align(copy, cache, "judge=human", command="evaluate")
    assert result.stat().st_mtime_ns == written
    pair = answers(RunDir(copy))[7]
    keep(copy, [Label(pair, "ben", preferring(pair, "sft"), "a", 5.0, TIME)])
    align(copy, cache, "judge=human", command="evaluate")
    assert json.loads(result.read_text(encoding="utf-8"))["metrics"]["judges.human.compared"] == 7


def test_a_judge_of_people_may_stand_in_a_config_before_anybody_has_compared(
    labelled: Path, cache: Path, tmp_path: Path
) -> None:
    for stage in ("sft", "reward", "policy"):
        shutil.copytree(labelled / stage, tmp_path / "run" / stage)
    run = align(tmp_path / "run", cache, "evaluate.judges.people={kind: human}", command="evaluate")
    figures = summary(run)
    assert figures["evaluate.judges.people.compared"] == figures["evaluate.judges.people.annotators"] == 0
    assert "evaluate.judges.people.win_rate.policy_vs_sft" not in figures


def test_labels_that_arent_there_are_told_before_anything_is_trained(
    run_align: Align, at_root: Path, cache: Path, tmp_path: Path
) -> None:
    arguments = [f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}", "logging.progress=false"]
    for labels, expected in [("nowhere.jsonl", "no labels at nowhere.jsonl"), (PREFERENCES, "….labels.jsonl")]:
        judge = f"evaluate.judges.people={{kind: human, labels: {labels}}}"
        code, _, err = run_align("run", "configs/smoke.yaml", *arguments, judge)
        assert code == 2
        assert "".join(expected.split()) in "".join(err.split())
    assert not (tmp_path / "run" / "sft").exists()


PREFERENCES = "data/quickstart/preferences.jsonl"


# ---- the labels train the next run ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs that people have labelled, each clearly (2 of 3), as `align collect export` writes them."""
    folder = tmp_path_factory.mktemp("many") / "run"
    rows = read_jsonl(ROOT / PREFERENCES)[:40]
    pairs = [
        Pair(
            f"p{n}",
            ({"role": "user", "content": row["prompt"]},),
            Answer(row["chosen"], "x"),
            Answer(row["rejected"], "y"),
        )
        for n, row in enumerate(rows)
    ]
    keep(folder, [Label(pair, "ann", "a", "b", 5.0, TIME, 2) for pair in pairs])
    return folder


def reward(folder: Path, labelled: Path, cache: Path, *extra: str) -> dict[str, Any]:
    shutil.copytree(labelled / "sft", folder / "sft")
    metrics = align(folder, cache, *extra, command="reward").require("reward").metrics
    first = next(row for row in read_jsonl(folder / "reward" / "metrics.jsonl") if "reward/loss" in row)
    return metrics | {"first_loss": first["reward/loss"]}


def test_exported_labels_train_a_reward_model_with_their_margins(
    run_align: Align, exported: Path, labelled: Path, cache: Path, tmp_path: Path
) -> None:
    """No column has to be named. The loss with margins is −log σ(d − 2/3): above the one without for the same start."""
    file = tmp_path / "mine.jsonl"
    code, out, err = run_align("collect", "export", str(exported), "--to", str(file))
    assert (code, err) == (0, "")
    assert "40 pairs from 40 labels" in out
    assert {row["margin"] for row in read_jsonl(file)} == {2 / 3}
    source = f"reward.data.source={file}"
    plain = reward(tmp_path / "plain", labelled, cache, source)
    margins = reward(tmp_path / "margins", labelled, cache, source, "reward.margins=true")
    assert plain["train_pairs"] == margins["train_pairs"] > 0
    # d is near 0 at the start: log 2 = .693 without, log(1 + e^⅔) = 1.081 with the margin.
    assert margins["first_loss"] - plain["first_loss"] == pytest.approx(1.081 - 0.693, abs=0.05)


def test_agreement_on_the_command_line(run_align: Align, labelled: Path, tmp_path: Path) -> None:
    code, out, _ = run_align("collect", "agreement", str(labelled), "--json")
    assert (code, out.count("\n")) == (0, 1)
    figures = json.loads(out)
    assert figures["agreement"]["pairs"] == 5
    assert figures["agreement"]["raw"] == pytest.approx(4 / 5)
    code, out, _ = run_align("collect", "agreement", str(labelled))
    assert code == 0
    assert "Cohen's κ" in out
    code, _, err = run_align("collect", "agreement", str(tmp_path))
    assert code == 2
    assert "has no labels yet" in " ".join(err.split())


def test_export_tells_what_is_no_pair(run_align: Align, labelled: Path, tmp_path: Path) -> None:
    code, out, err = run_align("collect", "export", str(labelled), "--to", str(tmp_path / "mine.jsonl"))
    assert code == 0
    assert "5 pairs from 13 labels" in " ".join(out.split())
    assert "not among them: 1 ties, 1 skips, 2 pairs without a majority" in " ".join(err.split())
    code, out, _ = run_align(
        "collect", "export", str(labelled), "--to", str(tmp_path / "all.jsonl"), "--merge", "all", "--json"
    )
    assert (code, json.loads(out)["rows"]) == (0, 11)
