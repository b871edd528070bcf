"""From the many spellings of a conversation to checked tuples of `Message`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.rows import BadRow, Reason
from pipeline.data.schema import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",  # ShareGPT
    "gpt": "assistant",  # ShareGPT
    "prompter": "user",  # OpenAssistant
}
_TRANSCRIPT_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")

Turns = tuple[Message, ...]


def read_text(value: Any, name: str) -> str:
    """Check that `value` is text that can be stored and tokenised.

    Raises:
        BadRow: Missing field, wrong type, or a lone surrogate (JSON can spell one, UTF-8 cannot).
    """
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, f"{name!r} is absent or null")
    if not isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, f"{name!r} is {_type(value)} where text was expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(Reason.BAD_VALUE, f"{name!r} holds half of a surrogate pair") from None
    return value


def read_turns(value: Any, name: str) -> Turns:
    """Read a list of turns, ``{"role", "content"}`` or ``{"from", "value"}`` each; their order is not judged.

    A string is taken as that list in JSON, since CSV has no lists. Blank system turns are dropped: exporters
    write them for "no system turn".
    """
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, f"{name!r} is absent or null")
    if isinstance(value, str):
        value = _from_json(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, f"{name!r} is {_type(value)} where a list of turns was expected")
    turns = tuple(_read_turn(turn, f"{name}[{index}]") for index, turn in enumerate(value))
    return tuple(turn for turn in turns if turn["role"] != "system" or turn["content"].strip())


def read_prompt(value: Any, name: str) -> Turns:
    """Read a prompt: text becomes one user turn, a list must end with the user's."""
    if isinstance(value, str) or value is None:
        return (Message(role="user", content=read_text(value, name)),)
    turns = read_turns(value, name)
    check_order(turns, "user", name)
    return turns


def read_answer(value: Any, name: str) -> str:
    """Read an answer: text, or a list that holds one assistant turn."""
    if isinstance(value, str) or value is None:
        return read_text(value, name)
    turns = read_turns(value, name)
    if [turn["role"] for turn in turns] != ["assistant"]:
        found = ", ".join(turn["role"] for turn in turns) or "no turns"
        raise BadRow(Reason.ROLE_ORDER, f"{name!r} holds {found} where one assistant turn was expected")
    return turns[0]["content"]


def read_transcript(value: Any, name: str) -> Turns:
    """Read HH-RLHF's ``"\\n\\nHuman: … \\n\\nAssistant: …"``. White space around turns is dropped."""
    text = read_text(value, name)
    before, *rest = _TRANSCRIPT_TURN.split(text)
    if not text.strip():
        raise BadRow(Reason.EMPTY_PROMPT, f"{name!r} is blank")
    if before.strip() or not rest:
        raise BadRow(Reason.BAD_VALUE, f"{name!r} does not start with 'Human:', as a transcript does")
    return tuple(
        Message(role="user" if speaker == "Human" else "assistant", content=content.strip())
        for speaker, content in zip(rest[::2], rest[1::2], strict=True)
    )


def split_answer(turns: Turns, name: str) -> tuple[Turns, str]:
    """Split a whole conversation into the prompt and the last assistant turn, checking the order of turns."""
    check_order(turns, "assistant", name)
    return turns[:-1], turns[-1]["content"]


def check_order(turns: Turns, last: Role, name: str) -> None:
    """Demand an optional system turn, then user and assistant in turn, ending with `last`.

    Raises:
        BadRow: Wrong role order, naming the first turn (counted from 1) that is out of place.
    """
    if not turns:
        raise BadRow(Reason.EMPTY_PROMPT, f"{name!r} holds no turns")
    spoken = list(enumerate(turns, start=1))
    if turns[0]["role"] == "system":
        spoken = spoken[1:]
    expected: Role = "user"
    for number, turn in spoken:
        if turn["role"] != expected:
            detail = f"turn {number} of {name!r} is {turn['role']} where {expected} was expected"
            raise BadRow(Reason.ROLE_ORDER, detail)
        expected = "assistant" if expected == "user" else "user"
    if turns[-1]["role"] != last or len(spoken) < (2 if last == "assistant" else 1):
        raise BadRow(Reason.ROLE_ORDER, f"{name!r} ends with {turns[-1]['role']} where {last} was expected")


def _read_turn(turn: Any, name: str) -> Message:
    if not isinstance(turn, Mapping):
        raise BadRow(Reason.WRONG_TYPE, f"{name} is {_type(turn)} where a turn was expected")
    # Arrow fills absent keys with null, so a key counts as present only if it has a value.
    role_key, text_key = ("from", "value") if turn.get("role") is None else ("role", "content")
    role = turn.get(role_key)
    if role is None:
        raise BadRow(Reason.MISSING_FIELD, f"{name} has no 'role'")
    if not isinstance(role, str):
        raise BadRow(Reason.WRONG_TYPE, f"the role of {name} is {_type(role)} where text was expected")
    if role not in _ROLES:
        raise BadRow(Reason.UNKNOWN_ROLE, f"{name} has the role {role!r}")
    return Message(role=_ROLES[role], content=read_text(turn.get(text_key), f"{name}.{text_key}"))


def _from_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        detail = f"{name!r} is text that is not a JSON list of turns"
        raise BadRow(Reason.NOT_JSON, detail) from None


def _type(value: Any) -> str:
    return "null" if value is None else type(value).__name__
