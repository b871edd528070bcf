"""Rewards that can be checked: functions of prompt, completion and the data row, for `policy.rewards`."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pipeline.data.schema import fold

MARK = "####"  # GSM8K writes the final answer behind it
# A minus behind a letter, a digit or a bracket is a hyphen or a subtraction.
NUMBER = re.compile(r"(?:(?<![\w)])-)?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?", re.ASCII)


def gsm8k(prompt: str, completion: str, row: Mapping[str, Any]) -> float:
    """1 where the completion's final number equals that of the row's `answer`, else 0.

    The final number is the first behind the last "####", or where there is none, the last one of the text. 1,000 equals
    1000.00; $ is passed over. Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems".

    Raises:
        ValueError: the row's answer holds no number.
    """
    wanted = final_number(str(_answer(row)))
    if wanted is None:
        raise ValueError(f"the row's answer holds no number: {row['answer']!r}")
    return float(final_number(completion) == wanted)


def exact(prompt: str, completion: str, row: Mapping[str, Any]) -> float:
    """1 where the completion says what the row's `answer` says, but for case, spacing and Unicode forms, else 0.

    Raises:
        ValueError: the row has no answer.
    """
    return float(fold(completion) == fold(str(_answer(row))))


def final_number(text: str) -> Decimal | None:
    """The first number behind the last "####", or the last number of a text without it; None where there is none."""
    _, mark, behind = text.rpartition(MARK)
    numbers = NUMBER.findall(behind)
    if not numbers:
        return None
    return Decimal(numbers[0 if mark else -1].replace("$", "").replace(",", ""))


def _answer(row: Mapping[str, Any]) -> Any:
    if row.get("answer") is None:
        raise ValueError(f"the row has no 'answer'; it has {', '.join(row) or 'no columns'}: map it with data.columns")
    return row["answer"]
