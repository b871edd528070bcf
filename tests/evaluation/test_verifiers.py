"""Rewards that can be checked, in cases that a reader can check."""

from decimal import Decimal

import pytest

from pipeline.evaluation.verifiers import exact, final_number, gsm8k

ANSWER = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 72"


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("48 + 24 = 72\n#### 72", 1.0),
        ("The answer is 72.", 1.0),
        ("She sold $72.00 worth of them!", 1.0),
        ("72 is my answer, not 71", 0.0),  # the last one counts
        ("#### 72 (of 100)", 1.0),  # behind the mark the first one
        ("72\n#### 24", 0.0),
        ("#### 24 no, wait\n#### 72", 1.0),  # the last mark
        ("####", 0.0),
        ("seventy-two", 0.0),
        ("", 0.0),
        ("It is 172", 0.0),
        ("It is -72", 0.0),
        ("100-72", 1.0),  # a subtraction's second number, not −72
    ],
)
def test_gsm8k(completion: str, right: float) -> None:
    assert gsm8k("How many?", completion, {"answer": ANSWER}) == right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,000", "1000"),
        ("1,000,000.50", "1000000.5"),
        ("12, 13", "13"),
        ("x=-5.", "-5"),
        ("2 out of 3)", "3"),
        ("no. 7 costs $-8", "-8"),
        ("-$8", "-8"),
        ("none", None),
    ],
)
def test_the_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == (None if number is None else Decimal(number))


def test_a_row_without_what_is_needed_is_said() -> None:
    with pytest.raises(ValueError, match=r"no 'answer'; it has prompt: map it with data\.columns"):
        gsm8k("?", "1", {"prompt": "?"})
    with pytest.raises(ValueError, match="holds no number"):
        gsm8k("?", "1", {"answer": "many"})


def test_exact() -> None:
    assert exact("?", " Paris ", {"answer": "paris"}) == 1.0
    assert exact("?", "Paris.", {"answer": "paris"}) == 0.0
    assert exact("?", "42", {"answer": 42}) == 1.0  # a column may hold a number
