"""Every illness is found where it was planted, and healthy data has none."""

from typing import Any

from pipeline.data.doctor import compare_prompts, equal_rows, labels
from pipeline.data.schema import Demonstration, Message, Preference, Prompt


def turn(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def demonstration(where: int, prompt: str, answer: str) -> Demonstration:
    return Demonstration((*turn(prompt), {"role": "assistant", "content": answer}), f"a.jsonl:{where}", {})


def pair(where: int, prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference(turn(prompt), chosen, rejected, 0.0, f"p.jsonl:{where}", {})


def prompts(name: str, *texts: str) -> list[Any]:
    return [Prompt(turn(text), f"{name}.jsonl:{index}", {}) for index, text in enumerate(texts, start=1)]


def test_equal_rows_are_found_and_other_answers_to_a_prompt_are_not() -> None:
    rows = [
        demonstration(1, "Why?", "So."),
        demonstration(2, "why?", "  so. "),
        demonstration(3, "Why?", "Because."),
    ]
    assert equal_rows(rows) == [("a.jsonl:1", "a.jsonl:2")]
    assert compare_prompts({"sft": rows}) == ({"sft": []}, [])


def test_prompts_that_are_nearly_the_same() -> None:
    rows = prompts("a", "how do i boil a small egg at home", "How do I boil a small egg at home?", "what is the time")
    rows += prompts("b", "how do i boil a small egg at home now")
    near, leaks = compare_prompts({"sft": prompts("s", "hello"), "policy": rows})
    assert near["policy"] == [("a.jsonl:1", "a.jsonl:2"), ("a.jsonl:1", "b.jsonl:1"), ("a.jsonl:2", "b.jsonl:1")]
    assert near["sft"] == leaks == []


def test_leaks_between_sets_are_told_with_both_places() -> None:
    sets = {
        "sft": prompts("s", "how do i boil a small egg at home", "what is the time"),
        "policy": prompts("p", "tell me a story"),
        "evaluate": prompts("e", "What is  the time", "how do i boil a small egg at home today", "who are you"),
    }
    near, leaks = compare_prompts(sets)
    assert {(leak.first, leak.second, leak.where, leak.equal) for leak in leaks} == {
        ("sft", "evaluate", ("s.jsonl:2", "e.jsonl:1"), True),
        ("sft", "evaluate", ("s.jsonl:1", "e.jsonl:2"), False),
    }
    assert not any(near.values())


def test_a_prompt_in_three_sets_leaks_from_each_to_each_later_one() -> None:
    sets = {name: prompts(name, "what is the time", "what is it") for name in ("sft", "policy", "evaluate")}
    _, leaks = compare_prompts(sets)
    assert len(leaks) == 6  # two prompts, three pairs of sets
    assert all(leak.equal for leak in leaks)


def test_repeats_within_a_set_are_no_leak() -> None:
    sets = {"sft": prompts("s", "what is it", "what is it"), "policy": prompts("p", "who are you")}
    assert compare_prompts(sets) == ({"sft": [], "policy": []}, [])


def test_labels_at_odds_and_repeated() -> None:
    pairs = [
        pair(1, "Which?", "this one", "that one"),
        pair(2, "Which?", "that one", "this one"),
        pair(3, "which?", "This one", "that one"),
        pair(4, "Who?", "this one", "that one"),
    ]
    found = labels(pairs, [(3, 2), (2, 3), (2, 2), (5, 1)])
    assert found.contradicting[0] == ("p.jsonl:1", "p.jsonl:2")
    assert found.repeated == [("p.jsonl:1", "p.jsonl:3")]
    assert (found.pairs, found.longer_wins, found.equally_long) == (4, 2, 1)
