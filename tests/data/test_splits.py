"""Splits by prompt, leaks between them, and prompts that are nearly the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import (
    DataError,
    Message,
    Preference,
    Prompt,
    Row,
    assert_disjoint,
    leaks,
    split_by_prompt,
)

HALVES = {"train": 0.5, "test": 0.5}


def ask(text: str, where: str = "x:1") -> Prompt:
    return Prompt(({"role": "user", "content": text},), where, {})


texts = st.lists(st.text(min_size=1, max_size=8).filter(str.strip), max_size=30)


@given(texts, st.integers())
def test_every_row_lands_in_one_part_and_its_twins_with_it(questions, seed) -> None:
    rows = [ask(text, f"x:{i}") for i, text in enumerate(questions)]
    parts = split_by_prompt(rows + rows, HALVES, seed=seed)
    assert sorted(row.where for part in parts.values() for row in part) == sorted(row.where for row in rows + rows)
    assert leaks(parts) == []
    assert_disjoint(parts)


@given(texts, texts)
def test_adding_rows_moves_none(old, new) -> None:
    before = split_by_prompt([ask(text) for text in old], HALVES, seed=1)
    after = split_by_prompt([ask(text) for text in [*new, *old]], HALVES, seed=1)
    for name in HALVES:
        assert {row.key for row in before[name]} <= {row.key for row in after[name]}


def test_the_split_is_the_same_on_every_machine() -> None:
    parts = split_by_prompt([ask(f"question {i}") for i in range(8)], HALVES, seed=0)
    assert [row.key[-1] for row in parts["train"]] == ["1", "4", "5", "6", "7"]


def test_shares_are_met_and_seeds_differ() -> None:
    rows = [ask(f"question {i}") for i in range(4000)]
    parts = split_by_prompt(rows, {"train": 0.8, "valid": 0.15, "test": 0.05}, seed=3)
    # Four standard deviations of a binomial with n = 4000 are at most 0.032.
    for name, share in (("train", 0.8), ("valid", 0.15), ("test", 0.05)):
        assert abs(len(parts[name]) / 4000 - share) < 0.032
    other = split_by_prompt(rows, {"train": 0.8, "valid": 0.15, "test": 0.05}, seed=4)
    assert {row.key for row in parts["test"]} != {row.key for row in other["test"]}


def test_a_part_of_share_nothing_stays_empty() -> None:
    parts = split_by_prompt([ask(str(i)) for i in range(200)], {"a": 0, "b": 1, "c": 0}, seed=0)
    assert [len(parts[name]) for name in "abc"] == [0, 200, 0]


@pytest.mark.parametrize("fractions", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {}, {"a": float("nan"), "b": 1}])
def test_shares_must_sum_to_one(fractions) -> None:
    with pytest.raises(DataError, match="shares of at least 0 that sum to 1"):
        split_by_prompt([], fractions, seed=0)


def test_a_leak_is_found_across_kinds_spelling_and_system_turns() -> None:
    turns = (Message(role="system", content="Be brief."), Message(role="user", content=" WHAT  is\n\uff58? "))
    pair = Preference(turns, "b", "c", 0.0, "p:1", {})
    parts: dict[str, list[Row]] = {"train": [pair], "valid": [ask("another")], "test": [ask("What is x?")]}
    assert leaks(parts) == [("train", "test", "what is x?")]
    with pytest.raises(DataError, match=r"1 prompt\(s\) occur in two parts, e.g. train and test: 'what is x\?'"):
        assert_disjoint(parts)


def test_turns_do_not_run_together_in_a_key() -> None:
    one = Prompt(({"role": "user", "content": "a\nb"},), "x:1", {})
    two = Prompt((Message(role="user", content="a"), Message(role="assistant", content="b")), "x:2", {})
    assert one.key != two.key
