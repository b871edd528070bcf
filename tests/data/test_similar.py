"""Prompts that are nearly the same: exactly those that comparing all with all would find."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import DataError, Prompt
from pipeline.data import similar as module
from pipeline.data.similar import near_duplicates, similar


def ask(text: str, where: str) -> Prompt:
    return Prompt(({"role": "user", "content": text},), where, {})


def test_near_duplicates_by_eye() -> None:
    rows = [
        ask("Write a poem about the sea", "x:1"),
        ask("Name three rivers", "x:2"),
        ask("write a poem about the sea!", "x:3"),  # same six words
        ask("Write a poem about the moon", "x:4"),  # 5 shared of 7
        ask("name  three RIVERS", "x:5"),  # equal once folded
    ]
    assert near_duplicates(rows) == [("x:1", "x:3"), ("x:1", "x:4"), ("x:2", "x:5"), ("x:3", "x:4")]
    assert near_duplicates(rows, threshold=5 / 7 + 0.01) == [("x:1", "x:3"), ("x:2", "x:5")]
    with pytest.raises(DataError, match=r"threshold = 0"):
        near_duplicates(rows, threshold=0)


def test_rows_of_one_place_are_still_told_apart() -> None:
    rows = [ask("one two three", "x:1"), ask("four five six", "x:1"), ask("one two three!", "x:1")]
    assert near_duplicates(rows) == [("x:1", "x:1")]


word_lists = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), max_size=12)


@settings(deadline=None)
@given(word_lists, st.sampled_from([0.2, 0.5, 0.6, 0.75, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(prompts, threshold) -> None:
    unique = list(dict.fromkeys(" ".join(words) for words in prompts))
    rows = [ask(text, str(i)) for i, text in enumerate(unique)]
    sets = [set(text.split()) for text in unique]
    expected = [
        (str(i), str(j))
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    ]
    assert near_duplicates(rows, threshold) == expected


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefghijklmnop"), max_size=14), max_size=20), st.sampled_from([0.3, 0.8]))
def test_blocks_fit_together_and_texts_without_words_match_nothing(sets, threshold) -> None:
    texts = list(dict.fromkeys(" ".join(sorted(own)) or "!" for own in sets))
    whole = similar(texts, threshold)
    assert not any("!" in (texts[a], texts[b]) for a, b in whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", 3)
        assert similar(texts, threshold) == whole
