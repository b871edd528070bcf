"""Which words of two answers differ."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# A word with apostrophes and hyphens; one sign of a script written without spaces; any other sign; a stretch of space.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['’-]\w+)*|[^\w\s]|\s+")


@dataclass(frozen=True)
class Piece:
    """A stretch of text, and whether the other answer lacks it."""

    text: str
    differs: bool = False


def differences(one: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces: what they share in order, and what only one of them has.

    Words are compared whatever their case; punctuation alone is never marked, and joins what stands around it. Joined,
    the pieces are the text again.
    """
    if one == other:
        return [Piece(one)], [Piece(other)]
    one_words, other_words = _WORD.findall(one), _WORD.findall(other)
    one_shared, other_shared = [False] * len(one_words), [False] * len(other_words)
    matcher = SequenceMatcher(None, [word.casefold() for word in one_words], [word.casefold() for word in other_words])
    for block in matcher.get_matching_blocks():
        if _says_something("".join(one_words[block.a : block.a + block.size])):
            one_shared[block.a : block.a + block.size] = [True] * block.size
            other_shared[block.b : block.b + block.size] = [True] * block.size
    return _pieces(one_words, one_shared), _pieces(other_words, other_shared)


def _pieces(words: Sequence[str], shared: Sequence[bool]) -> list[Piece]:
    """Neighbours of a kind as one piece."""
    pieces: list[Piece] = []
    for word, same in zip(words, shared, strict=True):
        if pieces and pieces[-1].differs != same:
            pieces[-1] = Piece(pieces[-1].text + word, pieces[-1].differs)
        else:
            pieces.append(Piece(word, not same))
    return [part for piece in pieces for part in (_without_ends(piece) if piece.differs else [piece])]


def _without_ends(piece: Piece) -> list[Piece]:
    """Space and punctuation at a marked piece's ends stay outside of the mark."""
    saying = [place for place, char in enumerate(piece.text) if _says_something(char)]
    if not saying:
        return [Piece(piece.text)]
    start, end = saying[0], saying[-1] + 1
    parts = (Piece(piece.text[:start]), Piece(piece.text[start:end], True), Piece(piece.text[end:]))
    return [part for part in parts if part.text]


def _says_something(text: str) -> bool:
    """Whether there is more to it than space and punctuation."""
    return any(not char.isspace() and not unicodedata.category(char).startswith("P") for char in text)
