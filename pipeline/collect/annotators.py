"""Who may answer: names, and for each a secret address made from the owner's token."""

import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.collect.errors import CollectError
from pipeline.collect.store import ADJUDICATOR

NAME = re.compile(r"[^\W_](?:[\w. -]{0,38}\w)?")
SHORTEST_TOKEN = 16  # characters of a token that is given


def annotators(names: str | None, invite: int | None) -> tuple[str, ...]:
    """Names given with commas between, or so many guests; one annotator where neither is told.

    Raises:
        CollectError: both, a name twice, or one that isn't a plain name.
    """
    if names is not None and invite is not None:
        raise CollectError("--annotators names people, --invite makes guests without names: give one of them")
    if invite is not None:
        return tuple(f"guest-{number}" for number in range(1, invite + 1))
    if names is None:
        return ("annotator",)
    found = tuple(name.strip() for name in names.split(","))
    for name in found:
        if not NAME.fullmatch(name) or name == ADJUDICATOR:
            raise CollectError(
                f"--annotators: {name!r} can't be a name; use letters, digits, dots, dashes and spaces, at most 40, "
                f"with a comma between two names (and {ADJUDICATOR!r} is taken)"
            )
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise CollectError(f"--annotators names {', '.join(twice)} twice")
    return found


def owner_token(path: Path, given: str | None) -> str:
    """The token that is given, else the one kept in `path`, made where there is none and readable by its owner alone.

    Raises:
        CollectError: the given one is too short, or can't stand in an address.
    """
    if given is not None:
        if len(given) < SHORTEST_TOKEN or not re.fullmatch(r"[A-Za-z0-9_.~-]+", given):
            raise CollectError(
                f"--token needs at least {SHORTEST_TOKEN} letters, digits, dashes, dots or underscores, such as "
                f"{secrets.token_urlsafe(18)}"
            )
        return given
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with open(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(24) + "\n")
    return path.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Doors:
    """Everybody's secrets. An annotator's token is HMAC-SHA256(owner's token, name): the same after a restart, and of
    no help in guessing another's. The owner's own opens the page where disagreements are settled."""

    owner: str
    names: Sequence[str]

    def token(self, name: str) -> str:
        """What an annotator's address ends with."""
        return self._tokens[name]

    def csrf(self, name: str) -> str:
        """What a page of this annotator must send along with everything that changes something."""
        return self._csrf[name]

    def who(self, token: str) -> str | None:
        """Whose token it is; compared in constant time."""
        found = None
        for name in self._tokens:
            if self.opens(token, name):
                found = name
        return found

    def opens(self, token: str, name: str) -> bool:
        """Whether it is this person's token; compared in constant time."""
        return name in self._tokens and hmac.compare_digest(self._tokens[name].encode(), token.encode())

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return {name: self._derive("annotator", name) for name in self.names} | {ADJUDICATOR: self.owner}

    @cached_property
    def _csrf(self) -> dict[str, str]:
        return {name: self._derive("csrf", name) for name in (*self.names, ADJUDICATOR)}

    def _derive(self, purpose: str, name: str) -> str:
        return hmac.new(self.owner.encode(), f"{purpose}:{name}".encode(), "sha256").hexdigest()[:32]
