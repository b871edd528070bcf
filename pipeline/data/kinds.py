"""From a parsed row to the kind of row that a stage asked for."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.data.formats import REQUIRED, Fields, Parsed, describe, has_columns
from pipeline.data.rows import BadRow, DataError, Reason
from pipeline.data.schema import Demonstration, Kind, Message, Preference, Prompt, Row
from pipeline.data.turns import Turns

# What each kind needs from a source, in words for the error message.
_NEEDS: dict[Kind, str] = {
    "demonstrations": "an answer: messages, prompt + completion, or prompt + chosen + rejected",
    "preferences": "ranked answers: chosen + rejected, with or without prompt, or info + summaries + choice",
    "prompts": "a prompt or messages",
}


def check_kind(kind: str) -> None:
    """Reject an unknown kind with the known ones."""
    if kind not in _NEEDS:
        raise DataError(f"kind = {kind!r} is unknown: use one of {', '.join(_NEEDS)}.")


def check_serves(schema: str, kind: Kind, columns: Collection[str]) -> None:
    """Demand that a table with these columns, read under this schema, can serve the kind.

    Raises:
        DataError: Naming the columns found and the ones needed.
    """
    found = ", ".join(columns) or "(none)"
    if schema not in REQUIRED:
        raise DataError(f"schema = {schema!r} is unknown: use auto or one of {', '.join(REQUIRED)}.")
    if not has_columns(schema, columns):
        raise DataError(
            f"the schema {schema} needs the columns {describe(schema)}, found {found}. "
            "Fix: map your columns to these names with `columns`, or set schema: auto."
        )
    serves = {"prompts": True, "demonstrations": schema != "prompt", "preferences": _ranks(schema, columns)}
    if not serves[kind]:
        raise DataError(
            f"the columns {found} (read as {schema}) cannot serve {kind}, which need {_NEEDS[kind]}. "
            "Fix: choose another source, or map its columns with `columns`."
        )


def build(parsed: Parsed, kind: Kind, where: str, fields: Fields, system: str | None = None) -> Row:
    """Make the row, checking only what this kind uses: a pair of equal answers is still a demonstration.

    Args:
        fields: All columns of the row; those that `parsed` didn't use become its `meta`.
        system: System turn for rows that have none.

    Raises:
        BadRow: Empty prompt or answer, or equal answers.
    """
    meta = {column: value for column, value in fields.items() if column not in parsed.used}
    prompt = _with_system(parsed.prompt, system)
    for number, turn in enumerate(prompt, start=1):
        if not turn["content"].strip():
            raise BadRow(Reason.EMPTY_PROMPT, f"turn {number} of the prompt ({turn['role']}) is blank")
    if kind == "prompts":
        return Prompt(prompt, where, meta, fields)
    chosen = _answer(parsed.completion, "completion" if parsed.rejected is None else "chosen")
    if kind == "demonstrations":
        return Demonstration((*prompt, Message(role="assistant", content=chosen)), where, meta)
    rejected = _answer(parsed.rejected, "rejected")
    if chosen.strip() == rejected.strip():
        raise BadRow(Reason.SAME_ANSWERS, f"both are {_shortened(chosen)!r}")
    return Preference(prompt, chosen, rejected, parsed.margin, where, meta)


def with_score_margin(fields: Fields) -> Fields:
    """Add ``score_margin = score_chosen - score_rejected`` where both scores are numbers.

    It stays in `meta`: the scales of judges differ, and as a margin it would change the loss. To ask for it:
    ``columns: {margin: score_margin}``.
    """
    chosen, rejected = fields.get("score_chosen"), fields.get("score_rejected")
    if "score_margin" in fields or not isinstance(chosen, (int, float)) or not isinstance(rejected, (int, float)):
        return fields
    return {**fields, "score_margin": chosen - rejected}


def _ranks(schema: str, columns: Collection[str]) -> bool:
    if schema == "tldr":
        return {"info", "summaries", "choice"} <= set(columns)
    return schema in ("preference", "ultrafeedback", "hh_rlhf")


def _with_system(prompt: Turns, system: str | None) -> Turns:
    if system is None or prompt[0]["role"] == "system":
        return prompt
    return (Message(role="system", content=system), *prompt)


def _answer(text: str | None, name: str) -> str:
    if text is None:
        raise BadRow(Reason.MISSING_FIELD, f"the row has no {name} answer")
    if not text.strip():
        raise BadRow(Reason.EMPTY_ANSWER, f"{name!r} is blank")
    return text


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
