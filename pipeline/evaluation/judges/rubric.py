"""Checks that a person wrote down as judge: regular expressions and functions, weighted; and length, the control."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.data.schema import prompt_text
from pipeline.evaluation.functions import FunctionError, function_source, load_function
from pipeline.evaluation.judges.protocol import Answer, JudgeError

Check = Callable[[str, str], float]  # of prompt and answer, as texts


@dataclass(frozen=True)
class Criterion:
    """One check with its weight."""

    name: str
    check: Check
    weight: float = 1.0


class RubricScorer:
    """score = Σ weight · check(prompt, answer)."""

    def __init__(self, name: str, criteria: Sequence[Criterion]) -> None:
        self.name, self._criteria = name, criteria

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Scores. Raises JudgeError where a check fails or gives no number; names it, the row and the prompt."""
        return [sum(self._points(one, row, answer) for one in self._criteria) for row, answer in enumerate(answers, 1)]

    def _points(self, criterion: Criterion, row: int, answer: Answer) -> float:
        prompt = prompt_text(answer.prompt)
        where = f"judge {self.name}, check {criterion.name!r}, answer {row} of those compared, to {prompt[:80]!r}"
        try:
            value = criterion.check(prompt, answer.text)
        except Exception as error:
            raise JudgeError(f"{where}: {type(error).__name__}: {error}") from error
        if not isinstance(value, bool | int | float | np.bool | np.number) or not np.isfinite(value):
            raise JudgeError(f"{where}: gave {value!r}, where a bool or a finite float is needed")
        return criterion.weight * float(value)


def pattern_check(pattern: str, *, wanted: bool) -> Check:
    """1 where the expression is found in the answer (or isn't, when it isn't wanted), else 0."""
    compiled = re.compile(pattern)
    return lambda prompt, answer: float((compiled.search(answer) is not None) == wanted)


def function_check(place: str) -> Check:
    """The function at "module:function".

    Raises:
        JudgeError: there is no such module or function, or importing it fails.
    """
    try:
        return load_function(place)
    except FunctionError as error:
        raise JudgeError(str(error)) from error


def function_file(place: str) -> Path | None:
    """The source of the module at "module:function", None where it has none."""
    function_check(place)
    return function_source(place)


class LengthScorer:
    """Tokens of the answer, or minus them: what any judge must do better than."""

    def __init__(self, name: str, prefer: Literal["longer", "shorter"]) -> None:
        self.name, self._sign = name, 1.0 if prefer == "longer" else -1.0

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [self._sign * len(answer.ids) for answer in answers]
