"""Labels as files: which become pairs, what their margin is, and that the loader reads them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.collect.errors import CollectError
from pipeline.collect.export import export, labels_of, refresh, write
from pipeline.collect.records import Answer, Label
from pipeline.collect.store import ADJUDICATOR, Store, labels_path
from pipeline.data.loaders import load
from pipeline.data.schema import Preference
from pipeline.rundir import read_jsonl
from tests.collect.builders import label, pair


def strong(one: Label, strength: int) -> Label:
    return replace(one, strength=strength)


def test_majority_gives_a_pair_one_row() -> None:
    votes = [
        strong(label(pair(0), "ann", "a", 1), 3),
        strong(label(pair(0), "ben", "a", 2, ["clearer"]), 1),
        label(pair(0), "cid", "b", 3),
        label(pair(0), "dan", "skip", 4),
    ]
    (row,) = export(votes).preferences
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Question 0?", "SFT says 0.", "Policy says 0.")
    assert (row["chosen_source"], row["rejected_source"]) == ("sft", "policy")
    assert row["margin"] == pytest.approx(2 / 3)  # mean of 3 and 1, in thirds
    assert (row["annotator"], row["votes"], row["of"], row["reasons"]) == ("ann, ben", 2, 3, ["clearer"])
    assert row["at"] == "2026-01-01T00:00:02.000+00:00"
    assert row["chosen_first"] == 1.0


def test_all_gives_each_preference_a_row() -> None:
    votes = [label(pair(0), "ann", "a"), label(pair(0), "ben", "b"), label(pair(0), "cid", "tie")]
    rows = export(votes, "all").preferences
    assert [(row["annotator"], row["chosen"]) for row in rows] == [("ann", "SFT says 0."), ("ben", "Policy says 0.")]
    assert [row["chosen_first"] for row in rows] == [1.0, 0.0]
    assert [row["margin"] for row in rows] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("verdicts", "rows", "without"),
    [("a b", 0, 1), ("a tie", 0, 1), ("both_bad", 0, 1), ("skip", 0, 0), ("a skip", 1, 0), ("a a tie", 1, 0)],
)
def test_a_majority_is_more_than_half(verdicts: str, rows: int, without: int) -> None:
    votes = [label(pair(0), f"person {i}", verdict) for i, verdict in enumerate(verdicts.split())]  # type: ignore[arg-type]
    found = export(votes)
    assert (len(found.preferences), found.summary["without_majority"]) == (rows, without)


@pytest.mark.parametrize("merge", ["majority", "all"])
def test_the_adjudicators_word_wins(merge: str) -> None:
    votes = [label(pair(0), "ann", "a"), label(pair(0), "ben", "a"), label(pair(0), ADJUDICATOR, "b")]
    found = export(votes, merge)  # type: ignore[arg-type]
    assert [(row["chosen"], row["annotator"]) for row in found.preferences] == [("Policy says 0.", ADJUDICATOR)]
    assert found.summary["overruled"] == 2
    tied = [*votes[:2], label(pair(0), ADJUDICATOR, "tie")]
    assert export(tied, merge).preferences == []  # type: ignore[arg-type]
    skipped = [*votes[:2], label(pair(0), ADJUDICATOR, "skip")]
    assert export(skipped, merge).preferences[0]["chosen"] == "SFT says 0."  # type: ignore[arg-type]


def test_what_is_no_pair_is_counted_and_kept() -> None:
    empty = replace(pair(4), a=Answer("  ", "sft"))
    equal = replace(pair(5), a=Answer("Same.", "sft"), b=Answer("Same. ", "policy"))
    votes = [
        label(pair(0), "ann", "tie"),
        label(pair(1), "ann", "both_bad"),
        label(pair(2), "ann", "skip"),
        label(pair(3, expected="a"), "ann", "a"),
        label(empty, "ann", "b"),
        label(equal, "ann", "b"),
        label(pair(6), "ann", "b"),
    ]
    found = export(votes)
    assert [row["pair"] for row in found.preferences] == ["pair-6"]
    assert len(found.labels) == 7
    counted = {key: found.summary[key] for key in ("rows", "ties", "both_bad", "skips", "unusable", "planted")}
    assert counted == {"rows": 1, "ties": 1, "both_bad": 1, "skips": 1, "unusable": 2, "planted": 1}
    assert found.summary["quality"]["labels"] == 6


def test_the_loader_reads_what_is_written(tmp_path: Path) -> None:
    """Nothing about columns has to be said; conversations of several turns make all prompts lists."""
    talk = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *pair(1).prompt)
    votes = [strong(label(pair(0), "ann", "b"), 2), label(replace(pair(1), prompt=talk), "ann", "a")]
    write(export(votes), tmp_path / "mine.jsonl")
    first, second = load(str(tmp_path / "mine.jsonl"), "preferences").rows
    assert isinstance(first, Preference)
    assert isinstance(second, Preference)
    assert (first.chosen, first.rejected, first.margin) == ("Policy says 0.", "SFT says 0.", pytest.approx(2 / 3))
    assert second.prompt == talk
    assert first.meta["annotator"] == "ann"
    assert len(read_jsonl(tmp_path / "mine.labels.jsonl")) == 2
    assert json.loads((tmp_path / "mine.summary.json").read_text(encoding="utf-8"))["rows"] == 2


def test_labels_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="has no labels yet"):
        labels_of(tmp_path)
    assert not labels_path(tmp_path).exists()  # to look leaves nothing behind
    refresh(tmp_path)
    store = Store(labels_path(tmp_path))
    store.add_label(label(pair(0), "ann", "a"))
    store.close()
    assert [one.annotator for one in labels_of(tmp_path)] == ["ann"]
    refresh(tmp_path)
    assert len(read_jsonl(tmp_path / "collect" / "preferences.labels.jsonl")) == 1
    assert not (tmp_path / "collect" / "preferences.jsonl").exists()  # a file to train on isn't changed by the way


@pytest.mark.parametrize("to", ["mine.csv", "nowhere/mine.jsonl"])
def test_a_place_that_cant_be_written_is_one_sentence(tmp_path: Path, to: str) -> None:
    with pytest.raises(CollectError, match="--to"):
        write(export([label(pair(0), "ann", "a")]), tmp_path / to)
