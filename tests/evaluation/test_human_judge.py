"""People as a judge: matched by prompt and both texts, mean preference, the adjudicator's word first."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.judges.human import HumanJudge, People
from pipeline.evaluation.judges.protocol import Answer, JudgeError, Verdict


def answer(text: str, prompt: str = "Why?") -> Answer:
    return Answer(({"role": "user", "content": prompt},), text, [1], [2], True)


def row(verdict: str, annotator: str = "ann", **columns: Any) -> dict[str, Any]:
    said = {"prompt": [{"role": "user", "content": "Why?"}], "a": "Yes.", "b": "No.", "a_source": "policy"}
    return said | {"b_source": "sft", "verdict": verdict, "annotator": annotator} | columns


def people(tmp_path: Path, *rows: dict[str, Any]) -> People:
    path = tmp_path / "x.labels.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return People(path)


YES, NO = answer("Yes."), answer(" No. ")  # white space around a text doesn't count


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([row("a")], 1.0),
        ([row("b")], 0.0),
        ([row("tie")], 0.5),
        ([row("both_bad")], 0.5),
        ([row("skip")], None),
        ([row("a", expected="a")], None),
        ([row("a"), row("a", "ben"), row("b", "cid")], 2 / 3),
        ([row("a"), row("skip", "ben")], 1.0),
        ([row("a"), row("a", a="No.", b="Yes.", annotator="ben")], 0.5),  # the same two, the other way round
        ([row("a"), row("a", "ben"), row("b", "adjudicator", settles=True)], 0.0),
        ([row("a", a="Other.")], None),
        ([row("a", prompt=[{"role": "user", "content": "How?"}])], None),
    ],
)
def test_what_people_said(tmp_path: Path, rows: list[dict[str, Any]], outcome: float | None) -> None:
    judge = HumanJudge("people", people(tmp_path, *rows))
    turned = None if outcome is None else pytest.approx(1 - outcome)
    assert [v.outcome for v in judge.compare([(YES, NO), (NO, YES)])] == [outcome, turned]


def test_a_conversation_is_matched_as_its_text(tmp_path: Path) -> None:
    """Samples hold conversations as one text, in which people's pairs may come."""
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
    asked = [Answer(turns, text, [1], [2], True) for text in ("Yes.", "No.")]
    for prompt in ([dict(turn) for turn in turns], [{"role": "user", "content": "system: Be brief.\nuser: Why?"}]):
        assert people(tmp_path, row("a", prompt=prompt)).outcome(*asked) == 1.0


def test_what_has_changed_since_is_counted(tmp_path: Path) -> None:
    found = people(
        tmp_path,
        row("a"),
        row("a", a="Another yes."),
        row("b", "ben", a="Another yes."),
        row("a", a="Of the base.", b_source="base"),
    )
    systems = frozenset({"policy", "sft"})
    assert found.gone([(NO, YES)], systems) == 1
    assert found.gone([], systems) == 2
    assert found.gone([], frozenset({"policy", "base"})) == 1
    assert found.annotators == 2


def test_nobody_says_nothing() -> None:
    assert HumanJudge("people", None).compare([(YES, NO)]) == [Verdict(None)]


def test_a_folder_holds_its_labels_under_the_default_name(tmp_path: Path) -> None:
    (tmp_path / "preferences.labels.jsonl").write_text(json.dumps(row("a")) + "\n", encoding="utf-8")
    assert People(tmp_path).outcome(YES, NO) == 1.0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "align collect export"),
        ("nonsense\n", ":1: no label with"),
        ('{"prompt": "x", "chosen": "y", "rejected": "z"}\n', "labels.jsonl"),
    ],
)
def test_what_is_no_file_of_labels_is_one_sentence(tmp_path: Path, text: str | None, part: str) -> None:
    path = tmp_path / "x.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(JudgeError, match=part):
        People(path)
