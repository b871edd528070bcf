"""Every schema, in every kind of row that it serves."""

from typing import Any

import pytest

from pipeline.data import DataError, Demonstration, Message, Preference, Prompt, load
from pipeline.data.formats import REQUIRED, recognise
from pipeline.data.schema import Kind, Role


def turns(*texts: str) -> list[Message]:
    """User and assistant in turn."""
    roles: tuple[Role, Role] = ("user", "assistant")
    return [Message(role=roles[i % 2], content=text) for i, text in enumerate(texts)]


HELLO = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: 2+2?\n\nAssistant:"
POST = {"post": "I ate a cake.", "title": "Cake", "subreddit": "food"}
POST_PROMPT = "SUBREDDIT: r/food\n\nTITLE: Cake\n\nPOST: I ate a cake.\n\nTL;DR:"

# name, schema, row, prompt as texts, (chosen) answer or None, rejected or None
CASES: list[tuple[str, str, dict[str, Any], list[str], str | None, str | None]] = [
    ("messages", "messages", {"messages": turns("a", "b", "c", "d")}, ["a", "b", "c"], "d", None),
    ("conversations", "messages", {"conversations": turns("a", "b")}, ["a"], "b", None),
    (
        "sharegpt",
        "messages",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        ["a"],
        "b",
        None,
    ),
    ("pair", "prompt_completion", {"prompt": "a", "completion": "b"}, ["a"], "b", None),
    (
        "pair of lists",
        "prompt_completion",
        {"prompt": turns("a", "b", "c"), "completion": [{"role": "assistant", "content": "d"}]},
        ["a", "b", "c"],
        "d",
        None,
    ),
    ("alpaca", "prompt_completion", {"instruction": "a", "input": "i", "output": "b"}, ["a\n\ni"], "b", None),
    ("alpaca blank", "prompt_completion", {"instruction": "a", "input": "", "output": "b"}, ["a"], "b", None),
    ("qa", "prompt_completion", {"question": "a", "answer": "b"}, ["a"], "b", None),
    ("preference", "preference", {"prompt": "a", "chosen": "b", "rejected": "c"}, ["a"], "b", "c"),
    (
        "preference of lists",
        "preference",
        {"prompt": turns("a"), "chosen": turns("", "b")[1:], "rejected": turns("", "c")[1:]},
        ["a"],
        "b",
        "c",
    ),
    ("hh", "hh_rlhf", {"chosen": HELLO + " 4", "rejected": HELLO + " 5"}, ["hi", "hello", "2+2?"], "4", "5"),
    (
        "ultrafeedback",
        "ultrafeedback",
        {"prompt": "a", "chosen": turns("a", "b"), "rejected": turns("a", "c")},
        ["a"],
        "b",
        "c",
    ),
    (
        "ultrafeedback bare",
        "ultrafeedback",
        {"chosen": turns("a", "b"), "rejected": turns("a", "c")},
        ["a"],
        "b",
        "c",
    ),
    ("tldr", "tldr", {"prompt": "a TL;DR:", "label": "b"}, ["a TL;DR:"], "b", None),
    ("tldr post", "tldr", {**POST, "summary": "cake"}, [POST_PROMPT], "cake", None),
    (
        "tldr comparison",
        "tldr",
        {"info": POST, "summaries": [{"text": "pie"}, {"text": "cake"}], "choice": 1},
        [POST_PROMPT],
        "cake",
        "pie",
    ),
    ("prompt", "prompt", {"prompt": "a"}, ["a"], None, None),
    ("prompt of turns", "prompt", {"prompt": turns("a", "b", "c")}, ["a", "b", "c"], None, None),
    ("messages that wait", "prompt", {"messages": turns("a")}, ["a"], None, None),
]
IDS = [case[0] for case in CASES]


@pytest.mark.parametrize(("name", "schema", "row", "prompt", "answer", "rejected"), CASES, ids=IDS)
def test_every_schema_serves_every_kind_it_has_the_text_for(write, name, schema, row, prompt, answer, rejected) -> None:
    path = write("x.jsonl", [{**row, "category": "maths"}])
    meta = {"category": "maths"} | ({"prompt": "a"} if name == "ultrafeedback" else {})

    loaded = load(path, "prompts")
    assert loaded.schema == schema
    assert loaded.rows == [Prompt(tuple(turns(*prompt)), "x.jsonl:1", meta)]

    if answer is None:
        with pytest.raises(DataError, match="cannot serve demonstrations"):
            load(path, "demonstrations")
    else:
        (demonstration,) = load(path, "demonstrations").rows
        assert demonstration == Demonstration(tuple(turns(*prompt, answer)), "x.jsonl:1", meta)
        assert (list(demonstration.prompt), demonstration.completion) == (turns(*prompt), answer)

    if rejected is None:
        with pytest.raises(DataError, match=r"cannot serve preferences.*Fix"):
            load(path, "preferences")
    else:
        (preference,) = load(path, "preferences").rows
        assert preference == Preference(tuple(turns(*prompt)), answer, rejected, 0.0, "x.jsonl:1", meta)


@pytest.mark.parametrize(("name", "schema", "row", "prompt", "answer", "rejected"), CASES, ids=IDS)
def test_parquet_says_the_same_as_json(write, name, schema, row, prompt, answer, rejected) -> None:
    kind: Kind = "prompts" if answer is None else "demonstrations" if rejected is None else "preferences"
    from_json = load(write("x.jsonl", [row]), kind)
    from_parquet = load(write("x.parquet", [row]), kind)
    assert from_parquet.schema == from_json.schema
    assert [r.key for r in from_parquet.rows] == [r.key for r in from_json.rows]


def test_the_cases_above_leave_no_schema_out() -> None:
    assert {case[1] for case in CASES} == set(REQUIRED)


def test_the_three_views_of_one_source_share_their_keys(write) -> None:
    path = write("x.jsonl", [{"chosen": HELLO + " 4", "rejected": HELLO + " 5"}])
    kinds: tuple[Kind, ...] = ("demonstrations", "preferences", "prompts")
    keys = {load(path, kind, system="Be brief.").rows[0].key for kind in kinds}
    assert keys == {"hi\nhello\n2+2?"}


def test_a_margin_column_is_used_and_scores_only_when_asked(write) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert load(write("m.jsonl", [{**pair, "margin": 1.5}]), "preferences").rows[0].margin == 1.5
    assert load(write("m.csv", [{**pair, "margin": 1.5}]), "preferences").rows[0].margin == 1.5

    path = write("s.jsonl", [{**pair, "score_chosen": 8.5, "score_rejected": 6}])
    (quiet,) = load(path, "preferences").rows
    assert quiet.margin == 0
    assert quiet.meta == {"score_chosen": 8.5, "score_rejected": 6, "score_margin": 2.5}
    (asked,) = load(path, "preferences", columns={"margin": "score_margin"}).rows
    assert asked.margin == 2.5


def test_a_system_turn_is_added_only_where_there_is_none(write) -> None:
    own = [{"role": "system", "content": "Own."}, *turns("a", "b")]
    blank = [{"role": "system", "content": " "}, *turns("a", "b")]
    path = write("x.jsonl", [{"messages": own}, {"messages": blank}, {"messages": turns("a", "b")}])
    rows = load(path, "demonstrations", system="Given.").rows
    assert [row.messages[0]["content"] for row in rows] == ["Own.", "Given.", "Given."]
    assert [len(row.messages) for row in rows] == [3, 3, 3]
    assert len({row.key for row in rows}) == 1


def test_columns_decide_before_values_and_values_where_columns_do_not() -> None:
    assert recognise(["prompt", "messages"], {"prompt": "a", "messages": turns("a", "b")}) == "messages"
    assert recognise(["prompt", "completion", "label"], {"prompt": "a"}) == "prompt_completion"
    assert recognise(["chosen", "rejected"], {}) == "hh_rlhf"
    with pytest.raises(DataError, match=r"the columns colour, size fit no known schema.*prompt \+ completion"):
        recognise(["colour", "size"], {})


def test_the_schema_is_told_from_more_than_the_first_row(write) -> None:
    rows = [{"prompt": "a"}, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    loaded = load(write("x.jsonl", rows), "preferences", on_bad_row="skip")
    assert (loaded.schema, loaded.counts) == ("preference", {"read": 2, "kept": 1, "missing field": 1})


def test_a_named_schema_must_fit_the_columns(write) -> None:
    path = write("x.jsonl", [{"prompt": "a", "completion": "b"}])
    assert load(path, "prompts", schema="prompt").rows[0].meta == {"completion": "b"}
    with pytest.raises(
        DataError, match=r"schema hh_rlhf needs the columns chosen \+ rejected, found prompt, completion"
    ):
        load(path, "prompts", schema="hh_rlhf")
    with pytest.raises(DataError, match="'hh' is unknown: use auto or one of preference,"):
        load(path, "prompts", schema="hh")
