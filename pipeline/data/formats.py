"""The schemas found in the wild: how to recognise one by its columns, and one parser for each.

A parser turns the columns of one row into `Parsed`, or raises `BadRow`. What is then made of it is decided in
`kinds.py`, so that every schema serves every kind of row that it has the text for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data.rows import BadRow, DataError, Reason
from pipeline.data.turns import (
    Turns,
    read_answer,
    read_prompt,
    read_text,
    read_transcript,
    read_turns,
    split_answer,
)

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Parsed:
    """What a row says, before it is put to a use.

    Attributes:
        prompt: Turns in the right order, user last.
        completion: The (preferred) answer, where there is one.
        rejected: The other answer, where there is one.
        margin: See `Preference.margin`.
        used: Columns that were read; all others become the row's `meta`.
    """

    prompt: Turns
    used: frozenset[str]
    completion: str | None = None
    rejected: str | None = None
    margin: float = 0.0


_PAIRS = (("prompt", "completion"), ("instruction", "output"), ("question", "answer"))
_TLDR = (("prompt", "label"), ("prompt", "summary"), ("post", "label"), ("post", "summary"))
_TLDR_COMPARISON = ("info", "summaries", "choice")
_CONVERSATIONS = ("messages", "conversations")

# Columns of which one whole tuple must be there.
REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "preference": (("prompt", "chosen", "rejected"),),
    "ultrafeedback": (("chosen", "rejected"),),
    "hh_rlhf": (("chosen", "rejected"),),
    "messages": tuple((name,) for name in _CONVERSATIONS),
    "prompt_completion": _PAIRS,
    "tldr": (*_TLDR, _TLDR_COMPARISON),
    "prompt": (("prompt",), *((name,) for name in _CONVERSATIONS)),
}


def recognise(columns: Collection[str], first_row: Fields) -> str:
    """Name the schema of a table from its columns and, where those leave a choice, from one row's values.

    Raises:
        DataError: If the columns fit no schema.
    """
    if {"chosen", "rejected"} <= set(columns):
        return _recognise_pairs(columns, first_row)
    conversation = next((name for name in _CONVERSATIONS if name in columns), None)
    if conversation is not None:
        return "prompt" if _last_role(first_row.get(conversation)) == "user" else "messages"
    for schema in ("prompt_completion", "tldr", "prompt"):
        if has_columns(schema, columns):
            return schema
    known = "; ".join(f"{name} ({describe(name)})" for name in REQUIRED)
    raise DataError(
        f"the columns {', '.join(columns) or '(none)'} fit no known schema. Known: {known}. "
        'Fix: map your columns to these names, e.g. columns: {prompt: "my_question"}.'
    )


def has_columns(schema: str, columns: Collection[str]) -> bool:
    """Whether one of the schema's column sets is there as a whole."""
    return any(set(needed) <= set(columns) for needed in REQUIRED[schema])


def describe(schema: str) -> str:
    """The columns a schema needs, in words."""
    return " or ".join(" + ".join(needed) for needed in REQUIRED[schema])


def parse(schema: str, fields: Fields) -> Parsed:
    """Read one row under the named schema.

    Raises:
        BadRow: If a field is missing, of the wrong type, or the turns are out of order.
    """
    return _PARSERS[schema](fields)


def _parse_messages(fields: Fields) -> Parsed:
    name = _first_filled(fields, _CONVERSATIONS)
    prompt, completion = split_answer(read_turns(fields.get(name), name), name)
    return Parsed(prompt, frozenset({name}), completion)


def _parse_prompt_completion(fields: Fields) -> Parsed:
    question, answer = _best_filled(fields, _PAIRS)
    prompt = read_prompt(fields.get(question), question)
    used = {question, answer}
    # Alpaca puts the material to work on into a column of its own, blank where there is none.
    if question == "instruction" and fields.get("input") is not None:
        used.add("input")
        extra = read_text(fields["input"], "input")
        if extra.strip():
            prompt = (*prompt[:-1], {"role": "user", "content": f"{prompt[-1]['content']}\n\n{extra}"})
    return Parsed(prompt, frozenset(used), read_answer(fields.get(answer), answer))


def _parse_preference(fields: Fields) -> Parsed:
    return Parsed(
        prompt=read_prompt(fields.get("prompt"), "prompt"),
        used=frozenset({"prompt", "chosen", "rejected", "margin"}),
        completion=read_answer(fields.get("chosen"), "chosen"),
        rejected=read_answer(fields.get("rejected"), "rejected"),
        margin=_margin(fields),
    )


def _parse_hh_rlhf(fields: Fields) -> Parsed:
    return _whole_conversations(fields, read_transcript)


def _parse_ultrafeedback(fields: Fields) -> Parsed:
    return _whole_conversations(fields, read_turns)


def _whole_conversations(fields: Fields, read: Callable[[Any, str], Turns]) -> Parsed:
    """Two conversations that must agree in all but the last turn."""
    prompt, chosen = split_answer(read(fields.get("chosen"), "chosen"), "chosen")
    other, rejected = split_answer(read(fields.get("rejected"), "rejected"), "rejected")
    if prompt != other:
        same = next((i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), None)
        turn = 1 + (min(len(prompt), len(other)) if same is None else same)
        raise BadRow(Reason.PROMPTS_DIFFER, f"chosen and rejected part at turn {turn}, before the last answer")
    return Parsed(prompt, frozenset({"chosen", "rejected", "margin"}), chosen, rejected, _margin(fields))


def _parse_tldr(fields: Fields) -> Parsed:
    if fields.get("summaries") is not None or fields.get("info") is not None:
        return _parse_tldr_comparison(fields)
    source, target = _best_filled(fields, _TLDR)
    summary = read_text(fields.get(target), target)
    if source == "prompt":
        return Parsed(read_prompt(fields.get("prompt"), "prompt"), frozenset({source, target}), summary)
    used = frozenset({source, target, "title", "subreddit"})
    return Parsed(_post_prompt(fields), used, summary)


def _parse_tldr_comparison(fields: Fields) -> Parsed:
    info, summaries, choice = (fields.get(name) for name in _TLDR_COMPARISON)
    for name, value in zip(_TLDR_COMPARISON, (info, summaries, choice), strict=True):
        if value is None:
            raise BadRow(Reason.MISSING_FIELD, f"{name!r} is absent or null")
    if not isinstance(info, Mapping):
        raise BadRow(Reason.WRONG_TYPE, "'info' is not an object")
    if not isinstance(summaries, list) or not all(isinstance(summary, Mapping) for summary in summaries):
        raise BadRow(Reason.WRONG_TYPE, "'summaries' is not a list of objects")
    if len(summaries) != 2:
        raise BadRow(Reason.BAD_VALUE, f"'summaries' holds {len(summaries)} where 2 were expected")
    if isinstance(choice, bool) or choice not in (0, 1):
        raise BadRow(Reason.BAD_VALUE, f"'choice' is {choice!r} where 0 or 1 was expected")
    texts = [read_text(summary.get("text"), f"summaries[{i}].text") for i, summary in enumerate(summaries)]
    best = int(choice)
    used = frozenset({*_TLDR_COMPARISON, "margin"})
    return Parsed(_post_prompt(info), used, texts[best], texts[1 - best], _margin(fields))


def _parse_prompt(fields: Fields) -> Parsed:
    name = _first_filled(fields, ("prompt", *_CONVERSATIONS))
    if name == "prompt":
        return Parsed(read_prompt(fields.get(name), name), frozenset({name}))
    turns = read_turns(fields.get(name), name)  # here text is JSON, as it may be in a CSV cell
    return Parsed(read_prompt(turns, name), frozenset({name}))


_PARSERS: dict[str, Callable[[Fields], Parsed]] = {
    "preference": _parse_preference,
    "ultrafeedback": _parse_ultrafeedback,
    "hh_rlhf": _parse_hh_rlhf,
    "messages": _parse_messages,
    "prompt_completion": _parse_prompt_completion,
    "tldr": _parse_tldr,
    "prompt": _parse_prompt,
}


def _post_prompt(fields: Fields) -> Turns:
    """The query of Stiennon et al. 2020: subreddit and title where known, the post, then the cue "TL;DR:"."""
    post = read_text(fields.get("post"), "post")
    if not post.strip():
        raise BadRow(Reason.EMPTY_PROMPT, "'post' is blank")
    lines = []
    for label, name in (("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title")):
        if fields.get(name):
            lines.append(label + read_text(fields[name], name))
    return ({"role": "user", "content": "\n\n".join([*lines, f"POST: {post}", "TL;DR:"])},)


def _margin(fields: Fields) -> float:
    value = fields.get("margin")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRow(Reason.WRONG_TYPE, f"'margin' is {type(value).__name__} where a number was expected")
    try:
        margin = float(value)  # text too: CSV has nothing else
    except (ValueError, OverflowError):
        raise BadRow(Reason.WRONG_TYPE, "'margin' is not a number") from None
    if not math.isfinite(margin):
        raise BadRow(Reason.BAD_VALUE, f"'margin' is {margin}")
    return margin


def _recognise_pairs(columns: Collection[str], first_row: Fields) -> str:
    chosen = first_row.get("chosen")
    if isinstance(chosen, list):
        return "preference" if "prompt" in columns and len(chosen) == 1 else "ultrafeedback"
    return "preference" if "prompt" in columns else "hh_rlhf"


def _last_role(value: Any) -> str | None:
    try:
        return read_turns(value, "messages")[-1]["role"]
    except (BadRow, IndexError):  # only a guess is wanted here; the parser will say what is wrong
        return None


def _first_filled(fields: Fields, names: tuple[str, ...]) -> str:
    return next((name for name in names if fields.get(name) is not None), names[0])


def _best_filled(fields: Fields, pairs: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """The pair of columns with most values; the first of equals, so the complaint names the usual columns."""
    return max(pairs, key=lambda pair: sum(fields.get(name) is not None for name in pair))
