"""Variety, and phrases that took over."""

import pytest

from pipeline.evaluation.text import distinct, ngrams, overused, shares, words


def test_words() -> None:
    assert words("It's GREAT, isn’t it?!") == ["it's", "great", "isn't", "it", "?", "!"]
    assert words("snake_case 42 Größe") == ["snake", "case", "42", "größe"]
    assert words("") == []


def test_ngrams() -> None:
    assert ngrams("a b c", 2) == [("a", "b"), ("b", "c")]
    assert ngrams("a b c", 3) == [("a", "b", "c")]
    assert ngrams("a", 2) == []


def test_distinct() -> None:
    """ "a b a" and "a b": unigrams a b a a b, 2 of 5; bigrams ab ba ab, 2 of 3."""
    assert distinct(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert distinct(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a b c"], 1) == 1.0
    assert distinct(["", "a"], 2) == 0.0


def test_shares_count_texts_not_occurrences() -> None:
    assert shares(["yes yes yes", "no"], sizes=(1,)) == {"yes": 0.5, "no": 0.5}


TEXTS = ["Sure! a b", "Sure! c d", "Sure! e f", "g h"]
PLAIN = ["a b", "c d", "e f", "sure g"]


def test_overused_phrases_come_with_both_shares_largest_excess_first() -> None:
    found = overused(TEXTS, PLAIN, minimum=0.5)
    assert found[0] == {"phrase": "!", "share": 0.75, "reference_share": 0.0}
    assert {"phrase": "sure", "share": 0.75, "reference_share": 0.25} in found
    assert not [row for row in found if row["phrase"] == "sure !"]  # says nothing that '!' doesn't


def test_the_factor_and_the_minimum_are_thresholds() -> None:
    assert not [row for row in overused(TEXTS, PLAIN, factor=3.0) if row["phrase"] == "sure"]  # .75 is not > 3 · .25
    assert overused(TEXTS, PLAIN, minimum=0.8) == []
    assert len(overused(TEXTS, PLAIN, limit=1)) == 1


def test_equal_texts_overuse_nothing() -> None:
    assert overused(TEXTS, TEXTS) == []
    assert overused([], PLAIN) == []
    assert overused(TEXTS, []) == []
