"""The three kinds of row that the stages consume, whatever file they came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypedDict

Role = Literal["system", "user", "assistant"]
Kind = Literal["demonstrations", "preferences", "prompts"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Demonstration:
    """A conversation to imitate; the last turn is the assistant's.

    Attributes:
        messages: An optional system turn, then user and assistant in turn, assistant last.
        where: Origin of the row, such as ``train.jsonl:17``.
        meta: Every column that the schema did not use.
    """

    messages: tuple[Message, ...]
    where: str
    meta: Mapping[str, Any]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the last assistant turn."""
        return self.messages[:-1]

    @property
    def completion(self) -> str:
        """The last assistant turn."""
        return self.messages[-1]["content"]

    @cached_property
    def key(self) -> str:
        """Normalised text of the prompt, see `prompt_key`."""
        return prompt_key(self.prompt)


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which the first was preferred.

    Attributes:
        prompt: An optional system turn, then user and assistant in turn, user last.
        chosen: The preferred answer.
        rejected: The other answer; never equal to `chosen`.
        margin: By how much `chosen` should win, in units of the reward model's score; 0 by default.
        where: Origin of the row.
        meta: Every column that the schema did not use.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float
    where: str
    meta: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Normalised text of the prompt, see `prompt_key`."""
        return prompt_key(self.prompt)


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for an answer; the last turn is the user's.

    Attributes:
        messages: An optional system turn, then user and assistant in turn, user last.
        where: Origin of the row.
        meta: Every column that the schema did not use.
        row: All columns, those too that another kind of row is made of: what a reward function may look into.
    """

    messages: tuple[Message, ...]
    where: str
    meta: Mapping[str, Any]
    row: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All of it."""
        return self.messages

    @cached_property
    def key(self) -> str:
        """Normalised text of the prompt, see `prompt_key`."""
        return prompt_key(self.messages)


Row = Demonstration | Preference | Prompt


def prompt_text(messages: Sequence[Message]) -> str:
    """A prompt for people to read: the single user turn, or every turn with its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def prompt_key(messages: Iterable[Message]) -> str:
    """Text by which two prompts count as the same: one line per turn, case, spacing and Unicode forms folded.

    System turns are left out. A stage may add one to its own copy of the data, and the same question under
    another system turn would still be a leak.
    """
    return "\n".join(fold(message["content"]) for message in messages if message["role"] != "system")


def fold(text: str) -> str:
    """Text without what doesn't count when two are compared: case, spacing, Unicode forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
