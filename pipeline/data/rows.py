"""What happens to a row that cannot be used: the run stops and says where, or the row is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

Policy = Literal["error", "skip"]


class DataError(ValueError):
    """The data, or the way it was asked for, cannot be used. The message says where and what to do."""


class Reason(StrEnum):
    """Why a row was turned away. The values are the names under which `Loaded.counts` reports them."""

    NOT_JSON = "not JSON"
    MISSING_FIELD = "missing field"
    WRONG_TYPE = "wrong type"
    BAD_VALUE = "bad value"
    EMPTY_PROMPT = "empty prompt"
    EMPTY_ANSWER = "empty answer"
    SAME_ANSWERS = "chosen equals rejected"
    UNKNOWN_ROLE = "unknown role"
    ROLE_ORDER = "wrong role order"
    PROMPTS_DIFFER = "prompts differ"


_FIXES: dict[str, str] = {
    Reason.NOT_JSON: "write one JSON object a line, in UTF-8",
    Reason.MISSING_FIELD: "fill the field in, or name the right column with `columns`",
    Reason.WRONG_TYPE: "give the field the type that its schema asks for",
    Reason.BAD_VALUE: "correct the value",
    Reason.EMPTY_PROMPT: "write a prompt, or delete the row",
    Reason.EMPTY_ANSWER: "write an answer, or delete the row",
    Reason.SAME_ANSWERS: "delete the pair: it prefers nothing",
    Reason.UNKNOWN_ROLE: "use the roles system, user and assistant",
    Reason.ROLE_ORDER: "an optional system turn first, then user and assistant in turn",
    Reason.PROMPTS_DIFFER: "chosen and rejected may differ in their last assistant turn only",
}


class BadRow(Exception):
    """Raised by a parser for the row at hand. Never leaves this package: `BadRows` decides what it means."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass
class BadRows:
    """Collects rejected rows, or stops at the first one.

    One object can serve several loads and later checks (for example pairs that become equal once truncated),
    so that a stage reports all its losses in one place.

    Attributes:
        policy: ``"error"`` stops at the first bad row, ``"skip"`` counts it and goes on.
        counts: Rejected rows by reason.
        rejected: Every rejected row as (where, reason, detail), in order.
    """

    policy: Policy
    counts: Counter[str] = field(default_factory=Counter, init=False)
    rejected: list[tuple[str, str, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise DataError(f"on_bad_row = {self.policy!r} is unknown: use 'error' or 'skip'.")

    def reject(self, where: str, reason: Reason | str, detail: str) -> None:
        """Turn one row away.

        Args:
            where: Origin of the row, such as ``train.jsonl:17``.
            reason: A `Reason`, or a short phrase of the caller's own.
            detail: What exactly was found in this row.

        Raises:
            DataError: If the policy is ``"error"``; names the place, the reason and the fix.
        """
        reason = str(reason)
        if self.policy == "error":
            fix = _FIXES.get(reason, "repair or delete the row")
            raise DataError(f"{where}: {reason}: {detail}. Fix: {fix}; or skip such rows with on_bad_row: skip.")
        self.counts[reason] += 1
        self.rejected.append((where, reason, detail))
