"""AlpacaEval's files (github.com/tatsu-lab/alpaca_eval): answers to be judged, and verdicts that came back."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from pipeline.atomic import write_atomically


class AlpacaError(ValueError):
    """A file that isn't what AlpacaEval reads or writes; the message names the row."""


@dataclass(frozen=True)
class Output:
    """One answer, a row of `model_outputs.json`. `dataset` says where the instruction comes from."""

    instruction: str
    output: str
    generator: str
    dataset: str = ""


@dataclass(frozen=True)
class Annotation:
    """One verdict, a row of `annotations.json`.

    Attributes:
        instruction: the prompt.
        output_1, generator_1: the baseline's answer and name.
        output_2, generator_2: those of the system that is asked about.
        preference: 1 = output_1 is better, 2 = output_2 is, 1.5 = a tie (read from a 0, too, as older files have it),
            anything between = a judge's probability; None = no verdict.
    """

    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    preference: float | None

    def turned(self) -> "Annotation":
        """The same verdict with the system as the baseline."""
        preference = None if self.preference is None else 3 - self.preference
        return Annotation(
            self.instruction, self.output_2, self.output_1, self.generator_2, self.generator_1, preference
        )


def read_annotations(path: Path) -> list[Annotation]:
    """The rows of an `annotations.json`.

    Raises:
        AlpacaError: not a JSON list, a missing key, or a preference out of range; the row is named.
    """
    keys = ("instruction", "output_1", "output_2", "generator_1", "generator_2")
    return [Annotation(**_texts(row, keys, place), preference=_preference(row, place)) for row, place in _rows(path)]


def read_outputs(path: Path) -> list[Output]:
    """The rows of a `model_outputs.json`; `dataset` may be missing.

    Raises:
        AlpacaError: not a JSON list, or a missing key; the row is named.
    """
    keys = ("instruction", "output", "generator")
    return [Output(**_texts(row, keys, place), dataset=str(row.get("dataset") or "")) for row, place in _rows(path)]


def write_outputs(path: Path, outputs: Sequence[Output]) -> None:
    """Write a `model_outputs.json`."""
    rows = [asdict(output) for output in outputs]
    write_atomically(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def outputs_of(rows: Iterable[Mapping[str, Any]], system: str, generator: str) -> list[Output]:
    """A system's answers in the rows of a run's evaluate/samples.jsonl; a prompt's category becomes its `dataset`.

    Raises:
        AlpacaError: no such system.
    """
    outputs = []
    for row in rows:
        answers = row["answers"]
        if system not in answers:
            raise AlpacaError(f"there are no answers of {system!r}, only those of {', '.join(answers)}")
        outputs.append(Output(row["prompt"], answers[system]["text"], generator, row.get("category") or ""))
    return outputs


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row with its place, such as "annotations.json, row 3"."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise AlpacaError(f"no file at {path}") from None
    except ValueError as error:
        raise AlpacaError(f"{path} isn't JSON ({error}); AlpacaEval's files hold one list of rows") from None
    if not isinstance(rows, list):
        raise AlpacaError(f"{path} holds a JSON {_kind(rows)}; AlpacaEval's files hold one list of rows")
    if not rows:
        raise AlpacaError(f"{path} holds an empty list")
    for number, row in enumerate(rows, start=1):
        place = f"{path.name}, row {number}"
        if not isinstance(row, dict):
            raise AlpacaError(f"{place}: is a JSON {_kind(row)}, not an object with keys")
        yield row, place


def _texts(row: Mapping[str, Any], keys: Sequence[str], place: str) -> dict[str, str]:
    for key in keys:
        if key not in row:
            raise AlpacaError(f"{place}: has no {key!r}, only {', '.join(row)}")
        if not isinstance(row[key], str):
            raise AlpacaError(f"{place}: {key} is a JSON {_kind(row[key])}, not text")
    return {key: row[key] for key in keys}


def _preference(row: Mapping[str, Any], place: str) -> float | None:
    if "preference" not in row:
        raise AlpacaError(f"{place}: has no 'preference', only {', '.join(row)}")
    found = row["preference"]
    if found is None or (isinstance(found, float) and isnan(found)):
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not (found == 0 or 1 <= found <= 2):
        raise AlpacaError(
            f"{place}: preference is {found!r}; it must lie between 1 (output_1 is better) and 2 (output_2 is better), "
            "or be 0 (a tie) or null (no verdict)"
        )
    return 1.5 if found == 0 else float(found)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
