"""Variety, and phrases that took over."""

import pytest

from pipeline.evaluation.text import StockPhrases, distinct, ngrams, overused, repetition, shares, words


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
    assert shares(["yes yes", "no"]) == {"yes": 0.5, "no": 0.5, "yes yes": 0.5}


def test_the_surplus_of_a_stock_phrase() -> None:
    """ "sure" in 2 of 4 reference texts and in every answer: p = .5 · .5 + .5 · 1, surplus 1 − 1 · .5 / .75 = 1/3."""
    stock = StockPhrases(["sure", "sure", "no", "yes"], factor=1.0, minimum=0.6, memory=0.5)
    assert stock.surplus(["sure", "sure"]) == pytest.approx([1 / 3, 1 / 3])
    assert stock.surplus(["sure", "well"])[1] == 0.0  # "well" stands in a quarter of the recent answers


def test_no_surplus_while_answers_are_like_the_reference() -> None:
    stock = StockPhrases(PLAIN)
    for _ in range(5):
        assert stock.surplus(PLAIN) == [0.0] * len(PLAIN)


def test_a_phrase_that_the_reference_does_not_know_is_surplus_until_it_is_gone() -> None:
    stock = StockPhrases(PLAIN, memory=0.5)
    assert stock.surplus(["a b", "take a"]) == pytest.approx([0.4, 2.4])  # "take", "take a"; "a" is at .625 for .25
    later = [stock.surplus(["a b", "c d", "e f", "sure g"]) for _ in range(10)]
    assert later[-1] == [0.0] * 4
    assert "take a" not in stock.recent  # forgotten, so that what is kept doesn't grow


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


def test_repetition_is_the_share_of_trigrams_said_before() -> None:
    assert repetition(["a b c a b c"]) == pytest.approx(1 / 4)  # abc bca cab abc
    assert repetition(["no no no no no"]) == pytest.approx(2 / 3)
    assert repetition(["a b", ""]) == 0.0
    assert repetition(["no no no no no", "a b c"]) == pytest.approx(1 / 3)
    assert repetition([]) == 0.0
