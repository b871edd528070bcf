"""Every reason for which a row is turned away, and the place that the message names."""

from collections import Counter
from typing import Any

import pytest

from pipeline.data import BadRows, DataError, Reason, load


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def hh(*turns: str) -> str:
    return "".join(f"\n\n{turn}" for turn in turns)


TOOL = {"role": "tool", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
GOOD_PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
GOOD_CHAT = {"messages": [user("a"), bot("b")]}
GOOD_HH = {"chosen": hh("Human: a", "Assistant: b"), "rejected": hh("Human: a", "Assistant: c")}

# reason, kind, a good row, how the bad row differs from it
ANYWHERE: list[tuple[Reason, str, dict[str, Any], dict[str, Any]]] = [
    (Reason.EMPTY_PROMPT, "preferences", GOOD_PAIR, {"prompt": " \t"}),
    (Reason.EMPTY_PROMPT, "prompts", GOOD_CHAT, {"messages": [user(""), bot("b")]}),
    (Reason.EMPTY_PROMPT, "preferences", GOOD_HH, {k: hh("Human:", f"Assistant: {k}") for k in GOOD_HH}),
    (Reason.EMPTY_ANSWER, "preferences", GOOD_PAIR, {"chosen": "\n"}),
    (Reason.EMPTY_ANSWER, "preferences", GOOD_PAIR, {"rejected": " "}),
    (Reason.EMPTY_ANSWER, "demonstrations", GOOD_CHAT, {"messages": [user("a"), bot(" ")]}),
    (Reason.SAME_ANSWERS, "preferences", GOOD_PAIR, {"rejected": "b "}),
    (Reason.ROLE_ORDER, "demonstrations", GOOD_CHAT, {"messages": [user("a"), user("a"), bot("b")]}),
    (Reason.ROLE_ORDER, "demonstrations", GOOD_CHAT, {"messages": [bot("a"), user("b"), bot("c")]}),
    (Reason.ROLE_ORDER, "demonstrations", GOOD_CHAT, {"messages": [user("a"), bot("b"), user("c")]}),
    (Reason.ROLE_ORDER, "demonstrations", GOOD_CHAT, {"messages": [user("a"), SYSTEM, bot("b")]}),
    (Reason.ROLE_ORDER, "preferences", GOOD_HH, {"chosen": hh("Human: a", "Human: a", "Assistant: b")}),
    (Reason.ROLE_ORDER, "preferences", GOOD_HH, {"rejected": hh("Human: a", "Assistant: b", "Assistant: c")}),
    (Reason.ROLE_ORDER, "preferences", GOOD_HH, {"chosen": hh("Human: a")}),
    (Reason.PROMPTS_DIFFER, "preferences", GOOD_HH, {"chosen": hh("Human: z", "Assistant: b")}),
    (Reason.PROMPTS_DIFFER, "prompts", GOOD_HH, {"chosen": GOOD_HH["chosen"] + hh("Human: x", "Assistant:")}),
    (Reason.UNKNOWN_ROLE, "demonstrations", GOOD_CHAT, {"messages": [TOOL, bot("b")]}),
    (Reason.BAD_VALUE, "preferences", GOOD_HH, {"chosen": "a transcript without a speaker"}),
    (Reason.BAD_VALUE, "preferences", {**GOOD_PAIR, "margin": 1.0}, {"margin": float("inf")}),
]  # fmt: skip

# Each format can go wrong in ways that the others have no way to spell.
JSON_ONLY: list[tuple[Reason, str, dict[str, Any], dict[str, Any]]] = [
    (Reason.WRONG_TYPE, "preferences", GOOD_PAIR, {"chosen": 7}),
    (Reason.WRONG_TYPE, "preferences", GOOD_PAIR, {"prompt": {"text": "a"}}),
    (Reason.WRONG_TYPE, "preferences", {**GOOD_PAIR, "margin": 1.0}, {"margin": True}),
    (Reason.WRONG_TYPE, "demonstrations", GOOD_CHAT, {"messages": ["a", "b"]}),
    (Reason.WRONG_TYPE, "demonstrations", GOOD_CHAT, {"messages": [{"role": 1, "content": "a"}, bot("b")]}),
    (Reason.WRONG_TYPE, "demonstrations", GOOD_CHAT, {"messages": [user(["a"]), bot("b")]}),
    (Reason.MISSING_FIELD, "demonstrations", GOOD_CHAT, {"messages": [{"content": "a"}, bot("b")]}),
    (Reason.EMPTY_PROMPT, "demonstrations", GOOD_CHAT, {"messages": []}),
    (Reason.BAD_VALUE, "preferences", GOOD_PAIR, {"chosen": "\ud800"}),
    (Reason.ROLE_ORDER, "preferences", GOOD_PAIR, {"chosen": [user("a"), bot("b")]}),
]
NULLS: list[tuple[Reason, str, dict[str, Any], dict[str, Any]]] = [
    (Reason.MISSING_FIELD, "preferences", GOOD_PAIR, {"rejected": None}),
    (Reason.MISSING_FIELD, "preferences", GOOD_HH, {"chosen": None}),
    (Reason.MISSING_FIELD, "demonstrations", GOOD_CHAT, {"messages": None}),
    (Reason.MISSING_FIELD, "demonstrations", GOOD_CHAT, {"messages": [user("a"), bot(None)]}),
]
CSV_ONLY: list[tuple[Reason, str, dict[str, Any], dict[str, Any]]] = [
    (Reason.NOT_JSON, "demonstrations", GOOD_CHAT, {"messages": "[{"}),
    (Reason.WRONG_TYPE, "demonstrations", GOOD_CHAT, {"messages": "7"}),
    (Reason.WRONG_TYPE, "preferences", {**GOOD_PAIR, "margin": 1.0}, {"margin": "much"}),
]


def csv_line(good: dict[str, Any]) -> int:
    """Line of the second row: after the header, and after all lines that the first row takes up."""
    return 3 + sum(value.count("\n") for value in good.values() if isinstance(value, str))


CASES = [
    *((".jsonl", "x.jsonl:2", *case) for case in ANYWHERE + JSON_ONLY + NULLS),
    *((".csv", f"x.csv:{csv_line(case[2])}", *case) for case in ANYWHERE + CSV_ONLY),
    *((".parquet", "x.parquet:2", *case) for case in ANYWHERE + NULLS),
]


@pytest.mark.parametrize(("suffix", "where", "reason", "kind", "good", "change"), CASES)
def test_a_bad_row_stops_the_run_or_is_counted(write, suffix, where, reason, kind, good, change) -> None:
    path = write(f"x{suffix}", [good, {**good, **change}, good])
    with pytest.raises(DataError) as error:
        load(path, kind)
    assert str(error.value).startswith(f"{where}: {reason}: ")
    assert "Fix: " in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None

    bad_rows = BadRows("skip")
    loaded = load(path, kind, bad_rows=bad_rows)
    assert loaded.counts == {"read": 3, "kept": 2, str(reason): 1}
    assert [row[:2] for row in bad_rows.rejected] == [(where, str(reason))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", Reason.NOT_JSON),
        (b"\xff\xfe", Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b"[1]", Reason.WRONG_TYPE),
        (b"null", Reason.WRONG_TYPE),
        (b"{}", Reason.MISSING_FIELD),
    ],
)
def test_a_line_that_is_no_row_is_named_by_its_line(write_bytes, line, reason) -> None:
    good = b'{"prompt": "a", "completion": "b"}'
    path = write_bytes("x.jsonl", b"\n\n" + good + b"\n   \n" + line + b"\n" + good)
    with pytest.raises(DataError, match=f"^x.jsonl:5: {reason}: "):
        load(path, "demonstrations")
    assert load(path, "demonstrations", on_bad_row="skip").counts == {"read": 3, "kept": 2, str(reason): 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"choice": 2}, Reason.BAD_VALUE),
        ({"choice": True}, Reason.BAD_VALUE),
        ({"choice": None}, Reason.MISSING_FIELD),
        ({"summaries": [{"text": "a"}]}, Reason.BAD_VALUE),
        ({"summaries": "a"}, Reason.WRONG_TYPE),
        ({"summaries": [{}, {}]}, Reason.MISSING_FIELD),
        ({"info": []}, Reason.WRONG_TYPE),
        ({"info": {"post": " "}}, Reason.EMPTY_PROMPT),
    ],
)
def test_bad_comparisons_of_summaries(write, change, reason) -> None:
    good = {"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}
    with pytest.raises(DataError, match=f"^x.jsonl:2: {reason}: "):
        load(write("x.jsonl", [good, good | change]), "preferences")


def test_only_what_a_kind_uses_is_judged(write) -> None:
    path = write("x.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}, {**GOOD_PAIR, "chosen": " "}])
    assert load(path, "demonstrations", on_bad_row="skip").counts == {"read": 2, "kept": 1, "empty answer": 1}
    assert load(path, "prompts").counts == {"read": 2, "kept": 2}


def test_one_collector_serves_several_loads_and_later_checks(write) -> None:
    path = write("x.jsonl", [GOOD_PAIR, {**GOOD_PAIR, "prompt": ""}])
    bad_rows = BadRows("skip")
    first = load(path, "preferences", bad_rows=bad_rows)
    second = load(path, "preferences", bad_rows=bad_rows)
    bad_rows.reject("x.jsonl:1", "equal once truncated", "both are 'b'")
    assert first.counts == second.counts == {"read": 2, "kept": 1, "empty prompt": 1}
    assert bad_rows.counts == Counter({"empty prompt": 2, "equal once truncated": 1})
    with pytest.raises(DataError, match=r"f:1: own words: found this. Fix: repair or delete the row; or skip"):
        BadRows("error").reject("f:1", "own words", "found this")
    with pytest.raises(DataError, match="use 'error' or 'skip'"):
        BadRows("ignore")  # type: ignore[arg-type]


def test_a_file_without_one_usable_row_is_an_error_even_when_skipping(write, write_bytes) -> None:
    with pytest.raises(DataError, match=r"no usable row is left \(read 1, kept 0, empty prompt 1\)"):
        load(write("x.jsonl", [{"prompt": " "}]), "prompts", on_bad_row="skip")
    with pytest.raises(DataError, match=r"no usable row is left \(read 2, kept 0, not JSON 2\)"):
        load(write_bytes("y.jsonl", b"{\n{"), "prompts", on_bad_row="skip")
